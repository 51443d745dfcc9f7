"""Child processes of a run: start, watch, stop. Owns their lifetime; what they serve is their rooms' business."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import TrunklineError

_GRACE_S = 5.0
_LOG_TAIL_LINES = 12


@dataclass(frozen=True)
class Child:
    """A running part."""

    name: str
    """Such as 'engine'."""
    process: asyncio.subprocess.Process
    """The process; leader of its own session, so that Ctrl-C reaches the conductor alone."""
    log_path: Path
    """Where its output goes."""
    failure: Callable[[str], TrunklineError]
    """The error that its unexpected end is."""

    async def watch(self) -> None:
        """Waits for the process to end, and raises: a part that dies ends the run with its cause."""
        status = await self.process.wait()
        raise self.failure(f"the {self.name} process ended with status {status}; the end of {self.log_path}:\n{self._log_tail()}")

    async def wait_ready(self, ready: Callable[[], asyncio.Future[None] | asyncio.Task[None]]) -> None:
        """Runs `ready` until it is done, or raises as soon as the process ends."""
        waiting, watching = asyncio.ensure_future(ready()), asyncio.create_task(self.watch())
        try:
            await asyncio.wait({waiting, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            await waiting
        finally:
            for task in (waiting, watching):
                task.cancel()
            await asyncio.gather(waiting, watching, return_exceptions=True)

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after a grace period; returns when the process is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), _GRACE_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()

    def _log_tail(self) -> str:
        try:
            lines = self.log_path.read_text(errors="replace").splitlines()
        except OSError:
            return "(no log)"
        return "\n".join(lines[-_LOG_TAIL_LINES:]) or "(empty)"


@asynccontextmanager
async def child_process(
    name: str, module: str, arguments: Sequence[str], *, log_path: Path, failure: Callable[[str], TrunklineError]
) -> AsyncIterator[Child]:
    """Runs `python -m module arguments` for the length of the block."""
    with log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=child_environment(),
            start_new_session=True,
        )
    child = Child(name, process, log_path, failure)
    try:
        yield child
    finally:
        await asyncio.shield(child.stop())


def child_environment() -> dict[str, str]:
    """The parent's environment, with one thread a process and a malloc that keeps its memory.

    Two torch threads collapse when cores are contended; returning freed blocks to the system after each step cost
    28% of a rollout's time in page faults, in one measurement of a prototype.
    """
    defaults = {"OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "1073741824", "MALLOC_MMAP_THRESHOLD_": "1073741824"}
    return {**defaults, **os.environ, "TOKENIZERS_PARALLELISM": "false"}


@contextmanager
def socket_directory() -> Iterator[Path]:
    """A private folder with a short path: Unix socket paths end at 108 bytes, run directories may not."""
    with tempfile.TemporaryDirectory(prefix="trunkline-") as folder:
        yield Path(folder)
