"""Copies a directory that an agent made without ever resolving a path in it. Owns the copying; layers.py owns what is copied.

Every name is opened relative to a descriptor of its directory and never through a link, so nothing that an agent puts there leads
elsewhere, even if this process is root. It stays simple: what it cannot do (a directory that its owner may not read, a tree deeper
than descriptors last) it refuses, and coreutils behind walls does it, some 15 ms slower.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

MAX_DEPTH = 64
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class CannotCopy(Exception):
    """This copy needs more than this module does; the target holds part of it."""


def copy_directory(source: Path, target: Path) -> None:
    """Copies what is in `source` into the directory `target`, which holds nothing of it: owners, modes, times, links, user
    attributes, whiteouts. Raises CannotCopy."""
    try:
        with _opened(str(source)) as source_fd, _opened(str(target)) as target_fd:
            _Copy(target_fd).directory(source_fd, target_fd, depth=0, path="")
    except OSError as error:
        raise CannotCopy(str(error)) from error


@dataclass
class _Copy:
    root: int
    """Descriptor of the whole target."""
    linked: dict[tuple[int, int], str] = field(default_factory=dict)
    """Files of several names that were copied: where to, relative to the root."""

    def directory(self, source: int, target: int, *, depth: int, path: str) -> None:
        if depth > MAX_DEPTH:
            raise CannotCopy(f"deeper than {MAX_DEPTH} directories")
        for name in os.listdir(source):
            self.entry(name, source, target, depth=depth, path=f"{path}{name}")
        _adorn(source, target)

    def entry(self, name: str, source: int, target: int, *, depth: int, path: str) -> None:
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=target)
            os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)  # now: coreutils may have to go on in it
            with _opened(name, source) as inner_source, _opened(name, target) as inner_target:
                self.directory(inner_source, inner_target, depth=depth + 1, path=f"{path}/")
        elif kind == stat.S_IFREG:
            self.file(name, source, target, found=found, path=path)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
            os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)
        elif kind != stat.S_IFCHR or found.st_rdev == 0:  # a pipe, a socket, or a whiteout of overlayfs; devices cannot be made inside
            os.mknod(name, found.st_mode, 0, dir_fd=target)
            os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)

    def file(self, name: str, source: int, target: int, *, found: os.stat_result, path: str) -> None:
        first = self.linked.get((found.st_dev, found.st_ino))
        if first is not None:
            os.link(first, name, src_dir_fd=self.root, dst_dir_fd=target)
            return
        if found.st_blocks * 512 < found.st_size:  # its holes would become zeros on our disk
            raise CannotCopy("a file with holes")
        if found.st_nlink > 1:
            self.linked[found.st_dev, found.st_ino] = path
        read_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
        try:
            write_fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
            try:
                while os.sendfile(write_fd, read_fd, None, 2**30):
                    pass
                _adorn(read_fd, write_fd)
            finally:
                os.close(write_fd)
        finally:
            os.close(read_fd)


@contextmanager
def _opened(name: str, parent: int | None = None) -> Iterator[int]:
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


def _adorn(source: int, target: int) -> None:
    """Attributes, owner, mode and times of an open file or directory."""
    for name in os.listxattr(source):
        if name.startswith("user."):
            os.setxattr(target, name, os.getxattr(source, name))
    found = os.fstat(source)
    os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
