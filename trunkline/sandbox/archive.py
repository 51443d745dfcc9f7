"""Directories as tar archives, the way they go into a container and come out of it. Owns what a change is; moves no archive.

An agent made what comes out: members are read in memory, never unpacked here.
"""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from trunkline.errors import SandboxError
from trunkline.types import FileChange


@dataclass(frozen=True)
class Entry:
    """What is at one path."""

    kind: Literal["file", "directory", "symlink", "other"]
    """What it is."""
    mode: int
    """Permission bits; 0 of a symlink."""
    digest: bytes
    """SHA-256 of a file's content, or of a symlink's target; of nothing for the rest."""


Tree = Mapping[str, Entry]
"""What is below a directory, by path."""


def pack(folders: Mapping[str, Path | None], user_id: int, archive: IO[bytes]) -> None:
    """Writes directories with their content, or empty ones, by their path in the archive; all belongs to the user, no link is followed.

    Raises OSError.
    """

    def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = user_id
        member.uname = member.gname = ""
        return member

    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, source in folders.items():
            top = owned(tarfile.TarInfo(name))
            top.type, top.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(top)
            for path in sorted(source.iterdir()) if source is not None else ():
                tar.add(path, f"{name}/{path.name}", filter=owned)


def read_tree(archive: IO[bytes]) -> Tree:
    """What is below the directory that was archived. Raises SandboxError."""
    tree = {}
    with _opened(archive) as tar:
        for member in tar:
            path = _below_top(member)
            if path:
                tree[path], _ = _read(tar, member)
    return tree


def read_changes(base: Tree, archive: IO[bytes]) -> tuple[FileChange, ...]:
    """Where an archived directory differs from `base`, by path: a directory that is gone is one change, one that stays is none.

    Raises SandboxError.
    """
    kinds: dict[str, str] = {"": "directory"}
    changes = []
    with _opened(archive) as tar:
        for member in tar:
            path = _below_top(member)
            if not path:
                continue
            entry, content = _read(tar, member)
            kinds[path] = entry.kind
            before = base.get(path)
            stays = before is not None and before.kind == entry.kind == "directory"
            if entry != before and not stays:
                changes.append(FileChange(path, entry.kind, entry.mode, content))
    changes += [FileChange(path, "deleted") for path in base if path not in kinds and kinds.get(posixpath.dirname(path)) == "directory"]
    return tuple(sorted(changes, key=lambda change: change.path))


@contextmanager
def _opened(archive: IO[bytes]) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(fileobj=archive) as tar:
            yield tar
    except (tarfile.TarError, KeyError) as error:  # a link to what is not there is a KeyError
        raise SandboxError(f"a container's files came as a broken archive: {error}") from error


def _below_top(member: tarfile.TarInfo) -> str:
    return posixpath.normpath(member.name).partition("/")[2]


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[Entry, bytes]:
    """A member, and its content: of a file, or a symlink's target."""
    mode = member.mode & 0o7777
    if member.isdir():
        return Entry("directory", mode, b""), b""
    if member.issym():
        target = member.linkname.encode("utf-8", "surrogateescape")
        return Entry("symlink", 0, hashlib.sha256(target).digest()), target
    source = tar.extractfile(member) if member.isreg() or member.islnk() else None
    if source is None:
        return Entry("other", mode, b""), b""
    content = source.read()
    return Entry("file", mode, hashlib.sha256(content).digest()), content
