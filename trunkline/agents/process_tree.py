"""A program with everything that it starts: run, read, end as a whole. Owns no task and no environment.

start ──► leader exits ────────────────────────► SIGKILL to the group, sweep ──► Ended
   └── cancelled ──► SIGTERM to the group, grace ──┘ (then reaped, and cancelled)

The program leads a session of its own, so one signal reaches its process group. What left the group (setsid, daemons) is
found by a mark in its environment. A process that does both, leaves the group and clears its environment, escapes, and if
this process itself is killed, nobody ends the program: it takes a sandbox to hold these.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "TRUNKLINE_ATTEMPT"
"""Names the environment variable whose random value marks all processes of one program."""
TERM_GRACE_S = 2.0
"""From SIGTERM to SIGKILL; the runner of attempts waits 5 s for an agent that it cancels."""

_MAX_SWEEPS = 5
_GONE_S = 0.2
_PIPES_S = 1.0


@dataclass(frozen=True)
class Limits:
    """How much of a program's output is kept; the rest is read and thrown away."""

    stdout_head: int
    """Bytes from the start of its stdout."""
    stderr_tail: int
    """Bytes from the end of its stderr."""


@dataclass(frozen=True)
class Ended:
    """How a program ended, with what it wrote."""

    status: int
    """Its exit status, or minus the signal that killed it."""
    stdout: bytes
    """The start of it."""
    stderr: bytes
    """The end of it."""
    num_stdout: int
    """Bytes that it wrote to stdout in all."""


async def run_to_end(command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], limits: Limits) -> Ended:
    """Runs a program; when this returns or raises, it and its descendants are gone.

    `environment` is all that it gets, and holds a random value under MARK. Raises OSError if it cannot be started.
    """
    async with _output(slice(0, limits.stdout_head)) as stdout, _output(slice(-limits.stderr_tail, None)) as stderr:
        process = None
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=cwd,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout.write_end,
                stderr=stderr.write_end,
                start_new_session=True,
            )
            stdout.close_write_end()
            stderr.close_write_end()
            status = await process.wait()
        finally:
            await _end(process, environment[MARK])
        # Their writers are dead, but for one that escaped: its pipe would never end.
        await asyncio.wait({stdout.ended, stderr.ended}, timeout=_PIPES_S)
        return Ended(status, stdout.kept, stderr.kept, stdout.num_read)


class _Output(asyncio.Protocol):
    """Reads a pipe of our own: asyncio's would let wait() hang on a descendant that keeps it open (cpython#119710)."""

    def __init__(self, keep: slice, write_end: int) -> None:
        self.kept = b""
        self.num_read = 0
        self.write_end = write_end
        self.ended = asyncio.get_running_loop().create_future()
        self._keep = keep

    def data_received(self, data: bytes) -> None:
        self.num_read += len(data)
        self.kept = (self.kept + data)[self._keep]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def close_write_end(self) -> None:
        """The program's copy is then the only one, and its end is ours."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1


@asynccontextmanager
async def _output(keep: slice) -> AsyncIterator[_Output]:
    read_end, write_end = os.pipe()
    output = _Output(keep, write_end)
    try:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: output, os.fdopen(read_end, "rb", buffering=0))
        try:
            yield output
        finally:
            transport.close()
    finally:
        output.close_write_end()


async def _end(process: asyncio.subprocess.Process | None, mark: str) -> None:
    """Ends the leader, its group and all that carries the mark."""
    try:
        if process is not None and process.returncode is None:
            _signal_group(process.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), TERM_GRACE_S)
    finally:  # whatever cancels us again, nothing keeps running
        if process is not None:
            _signal_group(process.pid, signal.SIGKILL)
        await asyncio.shield(asyncio.to_thread(_sweep, mark))
    if process is not None:
        await process.wait()


def _signal_group(leader: int, number: int) -> None:
    """The number is still the group's: its leader lives or was reaped a moment ago, and the system hands out numbers in turn."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # no member is left; macOS says so by EPERM
        os.killpg(leader, number)


def _sweep(mark: str) -> None:
    """Kills marked processes until there are none: one may have started another while we looked."""
    for _ in range(_MAX_SWEEPS):
        marked = [process for process in psutil.process_iter() if _has_mark(process, mark)]
        if not marked:
            return
        for process in marked:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(marked, timeout=_GONE_S)


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark
    except (psutil.Error, OSError):  # gone, a zombie, or another user's
        return False
