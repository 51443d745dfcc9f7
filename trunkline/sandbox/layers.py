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
import stat
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import SandboxError
from trunkline.sandbox.host import Host, Mount, Walls
from trunkline.sandbox.layer_copy import CannotCopy, copy_directory
from trunkline.types import FileChange

LAYERS = ("upper", "home", "tmp")
_POWERS = ("CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER")
_OPAQUE = "SCHILY.xattr.user.overlay.opaque"
_MAX_PATH_BYTES = 4096


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
            await asyncio.to_thread(copy_directory, source / name, target / name)
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


async def read_changes(host: Host, base: Path, upper: Path) -> tuple[FileChange, ...]:
    """What an upper layer does to its base, by path. Raises SandboxError."""
    options = ["--xattrs", "--xattrs-include=user.*"]
    archive = await _run_inside(host, [Mount(upper, "/from")], ["tar", "-C", "/from", *options, "-cf", "-", "."])
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
            changes[path] = _change(tar, member, path)
    directories = {path for path, change in changes.items() if change.kind == "directory" and (base / path).is_dir()}
    return tuple(changes[path] for path in sorted(changes) if path not in directories)


def measure(folder: Path) -> Usage:
    """Disk blocks and names of all layers; no link is followed."""
    num_bytes = num_files = 0
    is_hidden = False
    stack = [str(folder / name) for name in LAYERS]
    while stack:
        path = stack.pop()
        if len(path) > _MAX_PATH_BYTES:
            return Usage(num_bytes, num_files, is_hidden=True)
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    num_bytes += found.st_blocks * 512
                    num_files += 1
                    if stat.S_ISDIR(found.st_mode):
                        stack.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError:
            is_hidden = True
    return Usage(num_bytes, num_files, is_hidden)


async def measure_inside(host: Host, folder: Path) -> Usage:
    """The same by du, with powers over the sandbox's user's files: for what was hidden. Raises SandboxError."""
    mounts = [Mount(folder, "/from")]
    sizes = [int(line.split()[0]) for line in (await _run_inside(host, mounts, ["du", "-s", "-B1", "/from"])).splitlines()]
    names = [int(line.split()[0]) for line in (await _run_inside(host, mounts, ["du", "-s", "--inodes", "/from"])).splitlines()]
    return Usage(sum(sizes), sum(names), is_hidden=False)


def _change(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> FileChange:
    if member.ischr() and (member.devmajor, member.devminor) == (0, 0):
        return FileChange(path, "deleted")
    if member.issym():
        return FileChange(path, "symlink", content=os.fsencode(member.linkname))
    if member.isdir():
        return FileChange(path, "directory", member.mode)
    source = tar.extractfile(member) if member.isreg() or member.islnk() else None
    return FileChange(path, "other", member.mode) if source is None else FileChange(path, "file", member.mode, source.read())


def _all_deleted(base: Path, path: str) -> list[FileChange]:
    """An opaque directory hides all that the base has below it; what is there again comes later in the archive."""
    top = base / path
    return [FileChange(str(found.relative_to(base)), "deleted") for found in top.rglob("*")] if top.is_dir() else []


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


async def _run_inside(host: Host, mounts: Sequence[Mount], argv: Sequence[str]) -> bytes:
    return await _run(host.command(Walls(mounts, capabilities=_POWERS), argv))


async def _run(command: Sequence[str]) -> bytes:
    """Stdout of a tool. Raises SandboxError if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        stdout, stderr = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode:
        raise SandboxError(f"{' '.join(command[-8:])} failed with status {process.returncode}: {stderr.decode(errors='replace')[-500:]}")
    return stdout
