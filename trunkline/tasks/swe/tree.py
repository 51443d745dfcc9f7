"""The tree that is judged: a pristine workspace, what is kept of a diff, and the task's own tests over it. Owns no policy (allowed.py).

    pristine ──► + changes ──► + hidden tests ──► - judged test files (a sheet brings its own copies of them)

No link is followed on this host, whoever made it, and nothing is written outside the target.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from trunkline.types import FileChange

_NEVER_LAID = frozenset({"__pycache__", ".git", ".hg", ".svn", ".pytest_cache", ".mypy_cache", ".ruff_cache"})
_COMPILED = (".pyc", ".pyo")
_MAX_BYTES = 1024
_MAX_DEPTH = 64


def lay_tree(
    target: Path,
    *,
    pristine: Path,
    changes: Iterable[FileChange] = (),
    hidden: Path | None = None,
    without: Collection[str] = frozenset(),
) -> tuple[FileChange, ...]:
    """Makes `target`, which does not exist yet. Any user can write in it, since it belongs to whoever runs this.

    Args:
        target: Directory to make.
        pristine: The workspace as the agent got it. Its links are laid as links; caches and version control are left out.
        changes: Of a diff. Whatever order they come in, deletions come first.
        hidden: A tree whose files win over all that is there.
        without: Paths, relative to the workspace, that are left out whoever brings them.

    Returns:
        The changes that could not be laid: links and devices, paths that lead out or through a link, and files where a directory is
        or the reverse. allowed.py keeps none of these.
    """
    target.mkdir(parents=True)
    target.chmod(0o777)
    for path in _entries(pristine):
        if path not in without:
            _copy(pristine / path, target / path)
    ordered = sorted(changes, key=lambda change: (change.kind != "deleted", change.path))
    refused = tuple(change for change in ordered if change.path not in without and not _apply(target, change))
    if hidden is not None:
        _lay_hidden(target, hidden, without)
    return refused


def is_inside(path: str) -> bool:
    """Whether it is a plain relative path: nothing absolute, no '.', '..' or empty part, no NUL; and one that a host can hold."""
    parts = path.split("/")
    try:
        num_bytes = len(os.fsencode(path))
    except UnicodeEncodeError:
        return False
    return num_bytes <= _MAX_BYTES and len(parts) <= _MAX_DEPTH and not any(part in ("", ".", "..") or "\0" in part for part in parts)


def leads_through_link(tree: Path, path: str) -> bool:
    """Whether a directory on the way to `path` is a link, in a tree of this host."""
    return any((tree / parent).is_symlink() for parent in PurePosixPath(path).parents)


def blocks(tree: Path, path: str) -> bool:
    """Whether something on the way to `path` is there and no directory."""
    return any(os.path.lexists(tree / parent) and not _is_directory(tree / parent) for parent in PurePosixPath(path).parents)


def _entries(tree: Path) -> list[str]:
    """Paths of all that is laid of a tree, directories before what they hold."""
    found: list[str] = []
    for folder, directories, files in os.walk(tree):
        directories[:] = sorted(name for name in directories if name not in _NEVER_LAID)
        names = [*directories, *sorted(name for name in files if name not in _NEVER_LAID and not name.endswith(_COMPILED))]
        found += [(Path(folder) / name).relative_to(tree).as_posix() for name in names]
    return found


def _lay_hidden(target: Path, hidden: Path, without: Collection[str]) -> None:
    for path in _entries(hidden):
        if path not in without:
            _clear_way(target, path, is_directory=_is_directory(hidden / path))
            _copy(hidden / path, target / path)


def _copy(source: Path, target: Path) -> None:
    found = source.lstat()
    if stat.S_ISLNK(found.st_mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISDIR(found.st_mode):
        target.mkdir(exist_ok=True)
        target.chmod(0o777)
    elif stat.S_ISREG(found.st_mode):
        _write(target, source.read_bytes(), found.st_mode)


def _apply(target: Path, change: FileChange) -> bool:
    """Whether the change could be laid."""
    place = target / change.path
    if not is_inside(change.path) or leads_through_link(target, change.path) or blocks(target, change.path):
        return False
    if change.kind == "deleted":
        _remove(place)
        return True
    if change.kind == "directory":
        if os.path.lexists(place) and not _is_directory(place):
            return False
        _make_directories(target, change.path)
        return True
    if change.kind != "file" or _is_directory(place):
        return False
    _make_directories(target, str(PurePosixPath(change.path).parent))
    _remove(place)  # a link there is replaced, not written through
    _write(place, change.content, change.mode)
    return True


def _clear_way(target: Path, path: str, *, is_directory: bool) -> None:
    """Removes what lies where the task's own tests belong."""
    for parent in [*reversed(PurePosixPath(path).parents)][1:]:
        if os.path.lexists(target / parent) and not _is_directory(target / parent):
            _remove(target / parent)
    place = target / path
    if os.path.lexists(place) and not (is_directory and _is_directory(place)):
        _remove(place)


def _make_directories(target: Path, path: str) -> None:
    for parent in [*reversed(PurePosixPath(path).parents), PurePosixPath(path)]:
        place = target / parent
        if not place.is_dir():
            place.mkdir()
            place.chmod(0o777)


def _write(place: Path, content: bytes, mode: int) -> None:
    place.write_bytes(content)
    place.chmod(0o777 if mode & stat.S_IXUSR else 0o666)


def _remove(place: Path) -> None:
    if _is_directory(place):
        shutil.rmtree(place)
    elif os.path.lexists(place):
        place.unlink()


def _is_directory(place: Path) -> bool:
    try:
        return stat.S_ISDIR(place.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
