"""One process in a container of its own, without network and without a server inside. Owns its start, its reading and its end.

    image ─► make ─► put trees, what is shown, empty files for what it says ─► start ─► wait, measure ─► kill ─► read its files ─► remove

Nobody inside tells how it ended: the status is the engine's. What it printed and reported lies in files of the container, and these are
read once it is dead, for no process is left that could write them. The same promises as sealed.py's, by Docker's API.
"""

from __future__ import annotations

import asyncio
import io
import os
import posixpath
import signal
import stat
import tarfile
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trunkline.errors import CommandNotStarted, SandboxError
from trunkline.sandbox import archive
from trunkline.sandbox.docker_engine import Engine, NotInEngine
from trunkline.sandbox.host import HOME, USER_ID, WORKSPACE
from trunkline.sandbox.sealed import REPORT_FD
from trunkline.types import CommandResult, FileChange, SandboxLimits, SealedResult, SealedRun

_SAID = "/.trunkline"
"""What it prints and reports, and what it is given to read."""
_REPORT = 9
"""The descriptor, one digit, as a shell opens it."""
_START = f"""
cd -- "$1" || exit 126
shift
exec < {_SAID}/stdin > {_SAID}/stdout 2> {_SAID}/stderr {_REPORT}> {_SAID}/report
command -v -- "$1" > /dev/null || {{ echo x > {_SAID}/missing; exit 127; }}
exec "$@"
"""
_WRITTEN = ("stdout", "stderr", "report", "missing")
_NOT_FOUND = 127
"""A shell's status for a command that does not exist."""
_LOOK_EVERY_S = (0.05, 0.5)
"""At first, and in the end."""
_MEASURE_EVERY_S = 1.0
_END_TIMEOUT_S = 10.0
_HEADERS = 4096
"""Of one file in an archive, at most."""
_PLAIN_ENVIRONMENT: Mapping[str, str] = {"TZ": "UTC", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class SealedContainer:
    """One run."""

    engine: Engine
    """Where."""
    name: str
    """Of the container, which its maker removes."""
    run: SealedRun
    """What."""
    limits: SandboxLimits
    """Of it."""

    @property
    def argv(self) -> list[str]:
        """What the container starts: a shell that turns into the command."""
        return ["/bin/sh", "-c", _START, "sh", self.run.command.cwd or WORKSPACE, *self.run.command.argv]

    def environment(self, of_image: Mapping[str, str]) -> dict[str, str]:
        """Its variables."""
        return {**of_image, **_PLAIN_ENVIRONMENT, REPORT_FD: str(_REPORT), **self.run.command.environment}

    async def to_its_end(self, make: Callable[[], Awaitable[None]]) -> SealedResult:
        """Fills, starts, awaits and reads it; `make` makes the container. Cancelled, the container may still run.

        Raises CommandNotStarted, SandboxError.
        """
        await make()
        await self._check_empty()
        with tempfile.TemporaryFile() as packed:
            base = await asyncio.to_thread(self._pack, packed)
            await self.engine.ask("copy files into a container", self.engine.api.put_archive, self.name, "/", packed)
        started = time.monotonic()
        await self.engine.ask("start a container", self.engine.api.start, self.name)
        spent, is_timeout = await self._await_end(started)
        seconds = time.monotonic() - started
        state = await self._state()
        if state["OOMKilled"] and not is_timeout and not spent:
            spent = f"the kernel killed processes of it at {self.limits.memory_bytes:,} bytes of memory"
        if state["Error"]:
            raise SandboxError(f"the sealed process did not start: {state['Error']}")
        status = -signal.SIGKILL if spent or is_timeout else int(state["ExitCode"])
        return await self._read(status, seconds, spent, is_timeout, base)

    async def _check_empty(self) -> None:
        """What an image has of its own would lie between the trees, and would be taken for what the process wrote."""
        for path in filter(None, (WORKSPACE, self.run.collects)):
            try:
                with tempfile.TemporaryFile() as packed:
                    await self.engine.copy_out(self.name, path, packed)
                    found = await asyncio.to_thread(archive.read_tree, packed)
            except NotInEngine:
                continue
            if found:
                raise SandboxError(f"the image has files of its own at {path}, such as {min(found)}; it must be empty there")

    async def _await_end(self, started: float) -> tuple[str, bool]:
        """The limit that it spent, and whether its time was up. It is dead afterwards."""
        pause, measured = _LOOK_EVERY_S[0], started
        timeout_s = self.run.command.timeout_s
        assert timeout_s is not None
        while (await self._state())["Running"]:
            now = time.monotonic()
            if now - started >= timeout_s:
                await self._kill()
                return "", True
            if now - measured >= _MEASURE_EVERY_S:
                measured = now
                num_bytes = await self.engine.num_bytes_written(self.name)
                if num_bytes > self.limits.disk_bytes:
                    await self._kill()
                    return f"it wrote {num_bytes:,} bytes, it may write {self.limits.disk_bytes:,}", False
            await asyncio.sleep(min(pause, max(0.0, started + timeout_s - now)))
            pause = min(2 * pause, _LOOK_EVERY_S[1])
        return "", False

    async def _kill(self) -> None:
        await self.engine.kill(self.name)
        await self.engine.ask("wait for a container", self.engine.api.wait, self.name, timeout=_END_TIMEOUT_S)

    async def _state(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = (await self.engine.ask("look at a container", self.engine.api.inspect_container, self.name))["State"]
        return found

    async def _read(self, status: int, seconds: float, spent: str, is_timeout: bool, base: archive.Tree) -> SealedResult:
        half = self.run.command.max_output_bytes // 2
        kept = {"stdout": (half, half), "stderr": (half, half), "report": (self.run.max_report_bytes, 0), "missing": (1, 0)}
        said = await self.engine.ask("read what a container said", self._said, kept)
        if said["missing"].num_bytes and status == _NOT_FOUND:
            raise CommandNotStarted(f"there is no program {self.run.command.argv[0]!r} in the image")
        collected: tuple[FileChange, ...] = ()
        changes: tuple[FileChange, ...] = ()
        try:
            if self.run.collects is not None:
                collected = await self.engine.ask("copy files out of a container", self._changes, self.run.collects, {})
            if self.run.keeps_changes:
                changes = await self.engine.ask("copy files out of a container", self._changes, WORKSPACE, base)
        except _TooMuch as error:
            spent, status = spent or str(error), -signal.SIGKILL
        out, err, report = said["stdout"], said["stderr"], said["report"]
        result = CommandResult(status, out.content, err.content, out.num_bytes, err.num_bytes, is_timeout, seconds)
        return SealedResult(result, report.content, report.num_bytes > self.run.max_report_bytes, collected, changes, spent)

    def _said(self, kept: Mapping[str, tuple[int, int]]) -> dict[str, _Said]:
        """As it comes: files are as long as they may be, or only say so, and little of them is wanted."""
        chunks, _ = self.engine.api.get_archive(self.name, _SAID)
        try:
            with tarfile.open(fileobj=io.BufferedReader(_Chunks(chunks), 2**20), mode="r|") as tar:
                return _heads_and_tails(tar, kept)
        except tarfile.TarError as error:
            raise SandboxError(f"a container's files came as a broken archive: {error}") from error
        finally:
            chunks.close()

    def _changes(self, path: str, base: archive.Tree) -> tuple[FileChange, ...]:
        left = self.limits.disk_bytes + self.limits.num_files * _HEADERS
        chunks, _ = self.engine.api.get_archive(self.name, path)
        with tempfile.TemporaryFile() as packed:
            for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    chunks.close()
                    raise _TooMuch(f"the files that it left are more than the {self.limits.disk_bytes:,} bytes that it may write")
                packed.write(chunk)
            packed.seek(0)
            return archive.read_changes(base, packed)

    def _pack(self, packed: IO[bytes]) -> archive.Tree:
        """Writes the archive of all that lies in it before it starts, and returns what of that is the workspace."""
        with tarfile.open(fileobj=packed, mode="w") as tar:
            places = [HOME, WORKSPACE, self.run.collects or "", *(target for _, target in self.run.shown)]
            for parent in sorted({str(above) for place in places for above in _above(place)}):
                _add_directory(tar, parent, owner=0, mode=0o1777 if parent == "tmp" else 0o755)
            _add_directory(tar, _SAID, owner=0, mode=0o755)
            for name in _WRITTEN:
                _add_file(tar, f"{_SAID}/{name}", b"", owner=USER_ID, mode=0o600)
            _add_file(tar, f"{_SAID}/stdin", self.run.command.stdin, owner=0, mode=0o444)
            for place in filter(None, (HOME, self.run.collects)):
                _add_directory(tar, place, owner=USER_ID, mode=0o755)
            for source, target in self.run.shown:
                _add_tree(tar, target, [source], owner=0, mask=0o755)
            _add_tree(tar, WORKSPACE, self.run.trees, owner=USER_ID, mask=0o777)
        packed.seek(0)
        if not self.run.keeps_changes:
            return {}
        with tempfile.TemporaryFile() as alone:
            with tarfile.open(fileobj=alone, mode="w") as tar:
                _add_tree(tar, WORKSPACE, self.run.trees, owner=USER_ID, mask=0o777)
            alone.seek(0)
            return archive.read_tree(alone)


@dataclass
class _Said:
    """A file's beginning, and its end."""

    content: bytes
    num_bytes: int


class _TooMuch(SandboxError):
    """More comes out of a container than it may hold."""


class _Chunks(io.RawIOBase):
    """An archive as it comes from the engine."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._ahead = memoryview(b"")

    def readable(self) -> bool:
        """It can be read, in one direction."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See io.RawIOBase."""
        while not self._ahead and (chunk := next(self._chunks, None)) is not None:
            self._ahead = memoryview(chunk)
        size = min(len(buffer), len(self._ahead))
        buffer[:size], self._ahead = self._ahead[:size], self._ahead[size:]
        return size


def _heads_and_tails(tar: tarfile.TarFile, kept: Mapping[str, tuple[int, int]]) -> dict[str, _Said]:
    found = {name: _Said(b"", 0) for name in kept}
    for member in tar:
        name = posixpath.basename(member.name)
        source = tar.extractfile(member) if member.isreg() and name in kept else None
        if source is not None:
            head, tail = kept[name]
            found[name] = _Said(_cut(source, member.size, head, tail), member.size)
    return found


def _cut(source: IO[bytes], num_bytes: int, head: int, tail: int) -> bytes:
    """All of it, or its first and last part with a line of ours between, if there are to be two."""
    if num_bytes <= head + tail:
        return source.read()
    first, left = source.read(head), num_bytes - head - tail
    if not tail:
        return first
    while left:
        left -= len(source.read(min(left, 2**20)))
    return first + b"\n[... %d bytes left out ...]\n" % (num_bytes - head - tail) + source.read()


def _above(place: str) -> list[str]:
    """Directories above a place, without the root."""
    parts = place.strip("/").split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _add_directory(tar: tarfile.TarFile, place: str, *, owner: int, mode: int) -> None:
    member = tarfile.TarInfo(place.strip("/"))
    member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, mode, owner, owner
    tar.addfile(member)


def _add_file(tar: tarfile.TarFile, place: str, content: bytes, *, owner: int, mode: int) -> None:
    member = tarfile.TarInfo(place.strip("/"))
    member.size, member.mode, member.uid, member.gid = len(content), mode, owner, owner
    tar.addfile(member, io.BytesIO(content))


def _add_tree(tar: tarfile.TarFile, place: str, sources: Sequence[Path], *, owner: int, mask: int) -> None:
    """Directories over each other, later ones on top, or one file; no link is followed. Raises SandboxError."""
    try:
        if len(sources) == 1 and sources[0].is_file():
            _add_file(tar, place, sources[0].read_bytes(), owner=owner, mode=sources[0].stat().st_mode & mask)
            return
        _add_directory(tar, place, owner=owner, mode=0o755)
        for name, path in _merged(sources).items():
            if stat.S_ISSOCK(path.lstat().st_mode):  # an archive has no sockets
                continue
            member = tar.gettarinfo(path, f"{place.strip('/')}/{name}")
            member.uid = member.gid = owner
            member.uname = member.gname = ""
            member.mode &= mask
            if member.islnk():  # a second name of a file that is in the archive already
                member.type, member.size = tarfile.REGTYPE, path.stat().st_size
            if member.isreg():
                with path.open("rb") as content:
                    tar.addfile(member, content)
            else:
                tar.addfile(member)
    except OSError as error:
        raise SandboxError(f"cannot copy {error.filename} into a container: {error.strerror}") from error


def _merged(sources: Iterable[Path]) -> dict[str, Path]:
    """Name to path, directories before what they hold. A file on top of a directory hides all of it, and the reverse."""
    found: dict[str, Path] = {}
    for source in sources:
        for path in _walk(source):
            name = path.relative_to(source).as_posix()
            before = found.pop(name, None)
            if before is not None and not (_is_directory(before) and _is_directory(path)):
                for hidden in [other for other in found if other.startswith(f"{name}/")]:
                    del found[hidden]
            found[name] = path
    return dict(sorted(found.items(), key=lambda entry: entry[0].split("/")))


def _walk(folder: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))


def _is_directory(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)
