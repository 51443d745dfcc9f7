"""One process in a sandbox of its own, without doors and without a server inside. Owns its start, its reading and its end.

Nobody inside tells how it ended: the process is the first of its namespace, its status is what the kernel told bubblewrap outside,
and what it printed and reported is read from pipes until the kernel has killed all that it started. What it wrote is in memory
and gone with it, unless the run asks for it. Verdicts run here (tasks/swe): their process imports what an agent left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from trunkline.errors import SandboxError
from trunkline.sandbox import layers
from trunkline.sandbox.cgroups import Cgroup, CgroupTree
from trunkline.sandbox.host import HOME, WORKSPACE, Host, Mount, Overlay, Walls, bare_toolchain, package_folders, without_covered
from trunkline.types import CommandResult, FileChange, SandboxLimits, SealedResult, SealedRun

REPORT_FD = "TRUNKLINE_REPORT_FD"

_SCRATCH_BYTES = 256 * 2**20
_LOOK_EVERY_S = 0.25
_END_TIMEOUT_S = 10.0
_NAME_BYTES = 4096


async def run_sealed(host: Host, cgroups: CgroupTree, folder: Path, run: SealedRun, limits: SandboxLimits) -> SealedResult:
    """See `trunkline.protocols.SealedSandboxes`. `folder` has empty layers (layers.make_layers), the caller removes it."""
    assert not run.keeps_changes or len(run.trees) == 1, "changes are told against one tree"
    (folder / "bare").mkdir(mode=0o755)
    run = replace(run, trees=tuple([await _own(host, tree, folder / f"tree-{place}") for place, tree in enumerate(run.trees)]))
    async with _cgroup(cgroups, folder.name, limits) as cgroup:
        ended = await _Process(host, cgroup, folder, run, limits).run_to_end()
        kills = cgroup.num_oom_kills()
    spent = ended.spent or (f"the kernel killed {kills} of its processes at {limits.memory_bytes:,} bytes of memory" if kills else "")
    collected = await _changes(host, folder / "none", folder / "home", limits) if run.collects is not None else ()
    changes = await _changes(host, run.trees[0], folder / "upper", limits) if run.keeps_changes else ()
    report = ended.report
    return SealedResult(ended.result, report.content, report.num_bytes > run.max_report_bytes, collected, changes, spent)


async def _own(host: Host, tree: Path, target: Path) -> Path:
    """The tree, or a copy that belongs to the sandbox's user: overlayfs copies up no file of a user that the namespace does not know."""
    if not host.is_root or (await asyncio.to_thread(tree.stat)).st_uid == host.user_id:
        return tree
    await layers.copy_workspace(host, tree, target)
    return target


@dataclass
class _Kept:
    """What a pipe said: of too much the first part and, if there is room for it, the last."""

    head_bytes: int
    tail_bytes: int = 0
    num_bytes: int = 0
    _head: bytearray = field(default_factory=bytearray)
    _tail: deque[bytes] = field(default_factory=deque)
    _in_tail: int = 0

    async def read(self, stream: asyncio.StreamReader) -> None:
        """To its end."""
        while data := await stream.read(2**16):
            self.num_bytes += len(data)
            room = self.head_bytes - len(self._head)
            self._head += data[:room]
            if rest := data[room:] if self.tail_bytes else b"":
                self._tail.append(rest)
                self._in_tail += len(rest)
            while self._tail and self._in_tail - len(self._tail[0]) >= self.tail_bytes:
                self._in_tail -= len(self._tail.popleft())

    @property
    def content(self) -> bytes:
        """What is kept, with a line that says what is left out between, if there are two parts."""
        head, tail = bytes(self._head), b"".join(self._tail)[-self.tail_bytes :] if self.tail_bytes else b""
        if not self.tail_bytes or len(head) + len(tail) == self.num_bytes:
            return head + tail
        return head + b"\n[... %d bytes left out ...]\n" % (self.num_bytes - len(head) - len(tail)) + tail


@dataclass(frozen=True)
class _Ended:
    result: CommandResult
    report: _Kept
    spent: str


@dataclass
class _Process:
    host: Host
    cgroup: Cgroup
    folder: Path
    run: SealedRun
    limits: SandboxLimits

    async def run_to_end(self) -> _Ended:
        """Raises SandboxError with what bubblewrap says, if it did not come as far as the command."""
        half = self.run.command.max_output_bytes // 2
        stdout, stderr, report, status = _Kept(half, half), _Kept(half, half), _Kept(self.run.max_report_bytes), _Kept(2**12)
        started = time.monotonic()
        async with self._started() as (process, report_stream, status_stream):
            assert process.stdout is not None and process.stderr is not None
            readers = [(stdout, process.stdout), (stderr, process.stderr), (report, report_stream), (status, status_stream)]
            reading = [asyncio.create_task(kept.read(stream)) for kept, stream in readers]
            feeding = asyncio.create_task(_feed(process, self.run.command.stdin))
            watching = asyncio.create_task(self._watch())
            try:
                end = asyncio.create_task(process.wait())
                await asyncio.wait({end, watching}, timeout=self.run.command.timeout_s, return_when=asyncio.FIRST_COMPLETED)
                is_timeout = not end.done() and not watching.done()
                spent = watching.result() if watching.done() and not end.done() else ""
                _kill(process)
                await asyncio.wait_for(asyncio.gather(end, *reading), _END_TIMEOUT_S)
            except TimeoutError:
                raise SandboxError("a sealed process was killed, and its pipes stay open") from None
            finally:
                for task in (*reading, feeding, watching):
                    task.cancel()
                await asyncio.gather(*reading, feeding, watching, return_exceptions=True)
        code = _exit_code(status.content)
        if code is None and not (is_timeout or spent):
            raise SandboxError(f"the sealed process did not start: {stderr.content.decode(errors='replace')[-500:]}")
        seconds = time.monotonic() - started
        code = -signal.SIGKILL if code is None or is_timeout or spent else code
        result = CommandResult(code, stdout.content, stderr.content, stdout.num_bytes, stderr.num_bytes, is_timeout, seconds)
        return _Ended(result, report, spent)

    @asynccontextmanager
    async def _started(self) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader, asyncio.StreamReader]]:
        """The process with the streams of its report and of its status; it is dead afterwards."""
        with _pipe() as report, _pipe() as status:
            with self.host.opened("seccomp.bpf") as (filter_fd,):
                command = self.host.command(self._walls(report.write_fd, status.write_fd, filter_fd), self._argv())
                starting = asyncio.create_task(
                    asyncio.create_subprocess_exec(
                        *command,
                        stdin=asyncio.subprocess.PIPE,
                        stdout=asyncio.subprocess.PIPE,
                        stderr=asyncio.subprocess.PIPE,
                        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                        pass_fds=(report.write_fd, status.write_fd, filter_fd),
                        start_new_session=True,
                    )
                )
                try:
                    await asyncio.wait([starting])  # not cut short: what was started is known and can be ended
                    process = starting.result()
                except OSError as error:
                    raise SandboxError(f"cannot start a sealed process: {error}") from error
                except asyncio.CancelledError:
                    _kill(await starting)
                    raise
            try:
                yield process, await report.reader(), await status.reader()
            finally:
                _kill(process)
                await asyncio.shield(process.wait())

    def _walls(self, report_fd: int, status_fd: int, filter_fd: int) -> Walls:
        run = self.run
        mounts = [Mount(source, target) for source, target in run.shown]
        if run.collects is not None:
            mounts.append(Mount(self.folder / "home", run.collects, is_writable=True))
        prefixes = [*bare_toolchain(), *(source for source, target in run.shown if (source / "bin" / "python3").exists())]
        kept = (self.folder / "upper", self.folder / "work") if run.keeps_changes else (None, None)
        size = min(_SCRATCH_BYTES, self.limits.disk_bytes)
        return Walls(
            mounts,
            toolchain=without_covered(bare_toolchain()),
            covers=[Mount(self.folder / "bare", str(place)) for prefix in prefixes for place in package_folders(prefix)],
            overlay=Overlay(run.trees, *kept) if run.trees else None,
            scratch={"/tmp": size, HOME: size, **({} if run.trees else {WORKSPACE: size})},
            environment={**_ENVIRONMENT, REPORT_FD: str(report_fd), **run.command.environment},
            cwd=run.command.cwd or WORKSPACE,
            join_files=self.cgroup.join_files,
            fds={"--seccomp": filter_fd, "--json-status-fd": status_fd},
        )

    def _argv(self) -> list[str]:
        """The command under its limits; memory is held by the cgroup, and a process's by this where there is none."""
        limits = {"fsize": self.limits.disk_bytes, "nofile": self.limits.num_open_files, "core": 0}
        if not self.cgroup.folders:
            limits |= {"data": self.limits.memory_bytes, "nproc": self.limits.num_processes}
        return ["prlimit", *(f"--{name}={value}" for name, value in limits.items()), "--", *self.run.command.argv]

    async def _watch(self) -> str:
        """Returns when it has written more than it may to what is kept; waits for ever if nothing is."""
        if self.run.collects is None and not self.run.keeps_changes:
            await asyncio.Event().wait()
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            usage = await asyncio.to_thread(layers.measure, self.folder)
            if usage.num_bytes > self.limits.disk_bytes or usage.num_files > self.limits.num_files:
                return f"it wrote {usage.num_bytes:,} bytes in {usage.num_files:,} files, it may write {self.limits.disk_bytes:,} bytes"


_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": HOME,
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "USER": "agent",
    "TERM": "dumb",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass
class _Pipe:
    read_fd: int
    write_fd: int
    _transport: asyncio.BaseTransport | None = None

    async def reader(self) -> asyncio.StreamReader:
        """Its reading end; the writing end here is closed, so that it ends with its last writer elsewhere."""
        os.close(self.write_fd)
        self.write_fd = -1
        loop, stream = asyncio.get_running_loop(), asyncio.StreamReader()
        file, self.read_fd = os.fdopen(self.read_fd, "rb", 0), -1
        self._transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), file)
        return stream

    def close(self) -> None:
        """Both ends."""
        for fd in (self.read_fd, self.write_fd):
            if fd >= 0:
                os.close(fd)
        if self._transport is not None:
            self._transport.close()


@contextmanager
def _pipe() -> Iterator[_Pipe]:
    pipe = _Pipe(*os.pipe2(os.O_CLOEXEC))
    try:
        yield pipe
    finally:
        pipe.close()


async def make_cgroup(cgroups: CgroupTree, name: str, limits: SandboxLimits) -> Cgroup:
    """An empty one; nothing of it stays if this is cancelled. Raises SandboxError."""
    making = asyncio.create_task(asyncio.to_thread(cgroups.create, name, limits))
    try:
        return await asyncio.shield(making)
    except OSError as error:
        raise SandboxError(f"cannot make a cgroup: {error}") from error
    except asyncio.CancelledError:
        await asyncio.to_thread((await making).remove)
        raise


@asynccontextmanager
async def _cgroup(cgroups: CgroupTree, name: str, limits: SandboxLimits) -> AsyncIterator[Cgroup]:
    cgroup = await make_cgroup(cgroups, name, limits)
    try:
        yield cgroup
    finally:
        await asyncio.shield(asyncio.to_thread(cgroup.remove))


async def _feed(process: asyncio.subprocess.Process, content: bytes) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it need not read what it is given
        process.stdin.write(content)
        await process.stdin.drain()
    process.stdin.close()


async def _changes(host: Host, base: Path, upper: Path, limits: SandboxLimits) -> tuple[FileChange, ...]:
    most = limits.disk_bytes + limits.num_files * _NAME_BYTES
    return await layers.read_changes(host, base, upper, max_bytes=most)


def _kill(process: asyncio.subprocess.Process) -> None:
    """bubblewrap outside, whose end is the end of the first process inside and so of the whole namespace."""
    if process.returncode is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


def _exit_code(status: bytes) -> int | None:
    """What bubblewrap says of the command's end (128 + signal if one killed it); None if it did not come to that."""
    for line in status.splitlines():
        with contextlib.suppress(ValueError):
            told = json.loads(line)
            if isinstance(told, dict) and isinstance(told.get("exit-code"), int):
                return int(told["exit-code"])
    return None
