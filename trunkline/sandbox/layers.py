"""What sandboxes wrote, on this host's disk: copied, measured, compared, removed. Owns no process of an agent's.

An attempt's folder holds three layers: `upper` (over the workspace, with overlayfs's whiteouts and attributes), `home` and `tmp`.
An agent made what lies there, so this process never follows a name in it (layer_copy.py): reading, and copying and removing what
resists, is done by coreutils and tar behind the same walls, as the sandbox's own user, with powers over that user's files alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import posixpath
import shutil
import signal
import stat
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trunkline.errors import FileAccessError, SandboxError
from trunkline.sandbox.host import HOME, Host, Mount, Walls
from trunkline.sandbox.layer_copy import CannotCopy, copy_directory
from trunkline.types import FileChange

LAYERS = ("upper", "home", "tmp")
_POWERS = ("CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER")
_OPAQUE = "SCHILY.xattr.user.overlay.opaque"
_MAX_PATH_BYTES = 4096
_MAX_WORDS_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Usage:
    """What lies in an attempt's layers."""

    num_bytes: int
    """Of disk."""
    num_files: int
    """Names, directories included."""
    is_hidden: bool
    """Something could not be looked into."""


def make_layers(host: Host, folder: Path) -> None:
    """Empty layers, owned by the sandbox's user, in a new folder that nobody else opens."""
    for path in (folder, *(folder / name for name in (*LAYERS, "work"))):
        path.mkdir()
        path.chmod(0o700 if path == folder else 0o1777 if path.name == "tmp" else 0o755)
        if host.is_root:
            os.chown(path, host.user_id, host.group_id)


def clear_way(folder: Path, targets: Iterable[Path]) -> None:
    """Removes what an agent put where the toolchain is mounted below its /tmp or its home, a link above all: mounting would follow it.

    No process of the sandbox runs. Raises OSError.
    """
    for target in targets:
        for top, layer in (("/tmp", "tmp"), (HOME, "home")):
            place = folder / layer
            for name in target.relative_to(top).parts if target.is_relative_to(top) else ():
                place = place / name
                try:
                    if stat.S_ISDIR(place.lstat().st_mode):
                        continue
                except FileNotFoundError:
                    break
                place.unlink()
                break


async def copy_workspace(host: Host, source: Path | None, target: Path) -> None:
    """A copy that belongs to the sandbox's user. Raises SandboxError."""
    origin = _empty_workspace(source, target)
    if origin is not None:
        await _run(["cp", "-a", "--no-preserve=ownership", "--reflink=auto", "--", f"{origin}/.", str(target)])
    if host.is_root:
        await _run(["chown", "-hR", f"{host.user_id}:{host.group_id}", "--", str(target)])


def _empty_workspace(source: Path | None, target: Path) -> Path | None:
    if source is not None and not source.is_dir():
        raise SandboxError(f"a workspace is prepared from a directory, {source} is none; check the path")
    target.mkdir()
    target.chmod(0o755)
    return None if source is None else source.absolute()


async def copy_layers(host: Host, source: Path, target: Path) -> None:
    """Copies all layers with owners, times, links, attributes and whiteouts. Raises SandboxError."""
    try:
        for name in LAYERS:
            copying = asyncio.create_task(asyncio.to_thread(copy_directory, source / name, target / name))
            try:
                await asyncio.shield(copying)
            except asyncio.CancelledError:
                await asyncio.wait([copying])  # a thread goes on, and would write what is being removed
                raise
    except CannotCopy:
        mounts = [Mount(source, "/from"), Mount(target, "/to", is_writable=True)]
        copies = [f"/from/{name}" for name in LAYERS]
        await _run_inside(host, mounts, ["cp", "-a", "--remove-destination", "--reflink=auto", *copies, "/to"])


async def remove(host: Host, folder: Path) -> None:
    """Removes a folder with everything in it, whatever its modes and depth. Raises SandboxError if it stays."""
    if await asyncio.to_thread(_remove_plainly, folder):
        return
    with contextlib.suppress(SandboxError):  # it removes the content, but not the mount point
        await _run_inside(host, [Mount(folder, "/gone", is_writable=True)], ["rm", "-rf", "--one-file-system", "/gone"])
    if not await asyncio.to_thread(_remove_plainly, folder):
        raise SandboxError(f"cannot remove {folder}; what is left there is a sandbox's, remove it by hand")


async def read_changes(host: Host, base: Path, upper: Path, *, max_bytes: int) -> tuple[FileChange, ...]:
    """What an upper layer does to its base, by path. Raises SandboxError; FileAccessError if it is more than `max_bytes` with all names:
    files may claim what they do not hold."""
    options = ["--xattrs", "--xattrs-include=user.*"]
    archive = await _run_inside(host, [Mount(upper, "/from")], ["tar", "-C", "/from", *options, "-cf", "-", "."], max_bytes=max_bytes)
    return await asyncio.to_thread(_parse_changes, base, archive)


def _parse_changes(base: Path, archive: bytes) -> tuple[FileChange, ...]:
    changes: dict[str, FileChange] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            path = posixpath.normpath(member.name)
            if path == ".":
                continue
            if member.isdir() and member.pax_headers.get(_OPAQUE) == "y":
                changes |= {deleted.path: deleted for deleted in _all_deleted(base, path)}
            # Of a file's second name the first one's change: its content is not held twice, and all whiteouts may be one file.
            first = changes.get(posixpath.normpath(member.linkname)) if member.islnk() else None
            changes[path] = _change(tar, member, path) if first is None else replace(first, path=path)
    same = {path for path, change in changes.items() if change.kind == "directory" and _mode_of_directory(base, path) == change.mode}
    return tuple(changes[path] for path in sorted(changes) if path not in same)


def measure(folder: Path) -> Usage:
    """Disk blocks and names of all layers; no link is followed."""
    num_bytes = num_files = 0
    is_hidden = False
    linked: set[int] = set()
    stack = [str(folder / name) for name in LAYERS]
    while stack:
        path = stack.pop()
        if len(path) > _MAX_PATH_BYTES:
            return Usage(num_bytes, num_files, is_hidden=True)
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    num_files += 1
                    if stat.S_ISDIR(found.st_mode):
                        stack.append(entry.path)
                    elif found.st_nlink > 1:  # stored once, whatever it is called
                        if found.st_ino in linked:
                            continue
                        linked.add(found.st_ino)
                    num_bytes += found.st_blocks * 512
        except FileNotFoundError:
            continue
        except OSError:
            is_hidden = True
    return Usage(num_bytes, num_files, is_hidden)


async def measure_inside(host: Host, folder: Path) -> Usage:
    """The same by du, with powers over the sandbox's user's files: for what was hidden. Raises SandboxError."""
    script = "exec 2>/dev/null; du -s -B1 /from; du -s --inodes /from; true"  # its status is 1 also if a file is gone when it looks
    lines = (await _run_inside(host, [Mount(folder, "/from")], ["/bin/sh", "-c", script])).splitlines()
    if len(lines) != 2:
        raise SandboxError(f"du printed {len(lines)} lines, not 2")
    num_bytes, num_files = (int(line.split()[0]) for line in lines)
    return Usage(num_bytes, num_files, is_hidden=False)


def _change(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> FileChange:
    if member.ischr() and (member.devmajor, member.devminor) == (0, 0):
        return FileChange(path, "deleted")
    if member.issym():
        return FileChange(path, "symlink", content=os.fsencode(member.linkname))
    if member.isdir():
        return FileChange(path, "directory", member.mode)
    source = tar.extractfile(member) if member.isreg() else None
    return FileChange(path, "other", member.mode) if source is None else FileChange(path, "file", member.mode, source.read())


def _all_deleted(base: Path, path: str) -> list[FileChange]:
    """An opaque directory hides all that the base has below it; what is there again comes later in the archive."""
    if _mode_of_directory(base, path) is None:
        return []
    return [FileChange(str(found.relative_to(base)), "deleted") for found in (base / path).rglob("*")]


def _mode_of_directory(base: Path, path: str) -> int | None:
    """None if there is none in the base. A link there is not followed: it may lead to a directory of this host."""
    place, mode = str(base), None
    for name in path.split("/"):
        place = f"{place}/{name}"
        try:
            found = os.lstat(place)
        except OSError:  # not there, or a longer path than there can be
            return None
        if not stat.S_ISDIR(found.st_mode):
            return None
        mode = stat.S_IMODE(found.st_mode)
    return mode


def _remove_plainly(folder: Path) -> bool:
    """The usual case, without a process: shutil's removal is safe against links, but not against modes and depth."""
    with contextlib.suppress(OSError):
        (folder / "work" / "work").chmod(0o700)  # overlayfs leaves it without any
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return not folder.exists()
    except (OSError, RecursionError):
        return False
    return True


async def _run_inside(host: Host, mounts: Sequence[Mount], argv: Sequence[str], *, max_bytes: int = _MAX_WORDS_BYTES) -> bytes:
    return await _run(host.command(Walls(mounts, capabilities=_POWERS), argv), max_bytes=max_bytes)


async def _run(command: Sequence[str], *, max_bytes: int = _MAX_WORDS_BYTES) -> bytes:
    """Stdout of a tool. Raises SandboxError if it fails, or says more than `max_bytes`."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**20,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        stdout, stderr = await asyncio.gather(_read(process.stdout, max_bytes), _read(process.stderr, _MAX_WORDS_BYTES))
        await process.wait()
    except (asyncio.CancelledError, SandboxError):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode:
        raise SandboxError(f"{' '.join(command[-8:])} failed with status {process.returncode}: {stderr.decode(errors='replace')[-500:]}")
    return stdout


async def _read(stream: asyncio.StreamReader, max_bytes: int) -> bytes:
    """A stream to its end. Raises FileAccessError if it is longer: an agent decides how much there is, and we hold it in memory."""
    content = bytearray()
    while data := await stream.read(2**20):
        content += data
        if len(content) > max_bytes:
            raise FileAccessError(f"there is more than {max_bytes:,} bytes to read of what the sandbox left")
    return bytes(content)
