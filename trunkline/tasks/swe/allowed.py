"""Which files of a diff may reach the tree that is judged, and why the others may not. Owns the policy; tree.py lays what is kept.

    never      links, devices · paths that lead out · tests · start-up hooks · compiled code · version control · shadowing modules
    if named   configuration (by the solution or `allow`) · directories of tests (by `allow` only)
    yes        what the solution changes · source that exists · new files in existing packages · `allow`
    else       no

Tests come from the task, also where the solution changes them: the tree of hidden tests has its version. A package whose own source
lies in a directory called `testing` names it in `allow`. Configuration that the solution changes is kept: what it can do to a process
of a verdict, the code that is judged can do as well.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
import sys
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePosixPath

from trunkline.tasks.swe.task import CodeTask, is_test_module
from trunkline.tasks.swe.tree import is_inside
from trunkline.types import FileChange

_TEST_DIRECTORIES = frozenset({"test", "tests", "testing"})
_CONFIGURATION = frozenset({
    "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", "tox.toml", "toxfile.py", "setup.cfg", "setup.py",
    "pyproject.toml", ".coveragerc", "noxfile.py", "hatch.toml", "hatch_build.py", "pdm_build.py", "manifest.in", "uv.toml",
})  # fmt: skip
_START_UP = re.compile(r"(site|user)customize(\.|$)|.*\.(pth|_pth|egg-info|dist-info|egg|egg-link)$|(entry_points\.txt|pyvenv\.cfg)$")
_COMPILED = re.compile(r"__pycache__$|.*\.(py[cod]|so|so\..*|dylib|dll)$")
_VERSION_CONTROL = re.compile(r"\.git|\.(hg|svn|bzr|jj)$|\.hg(ignore|tags)$")


@dataclass(frozen=True)
class Dropped:
    """A change that does not reach the tree. `Dropped("conftest.py", "tests come from the task")`."""

    path: str
    """Of the change."""
    reason: str
    """In words."""


@dataclass(frozen=True)
class Allowed:
    """A diff, divided."""

    kept: tuple[FileChange, ...]
    """Files written and files deleted, with plain modes; directories come with their files."""
    dropped: tuple[Dropped, ...]
    """The rest, by path; directories by themselves are not counted."""


def allow_changes(
    changes: Iterable[FileChange],
    *,
    pristine: Path,
    oracle_paths: Collection[str],
    globs: Sequence[str] = (),
    import_roots: Sequence[str] = (".",),
    reserved: Collection[str] = frozenset(),
) -> Allowed:
    """Divides a diff.

    Args:
        changes: Hostile: paths, kinds and modes may be anything.
        pristine: The workspace that they are a diff of.
        oracle_paths: Paths that the task's solution changes.
        globs: Patterns that a solution may change beside source; `*` stands for anything, slashes included.
        import_roots: Directories of the workspace from which modules are imported.
        reserved: Top-level modules, beside the standard library's, that no new module may be called.
    """
    tree = _Pristine.read(pristine, tuple(import_roots))
    names = _Names(tree, frozenset(oracle_paths), tuple(globs), frozenset(reserved) | sys.stdlib_module_names)
    kept: dict[str, FileChange] = {}
    dropped: dict[str, Dropped] = {}
    known = {_folded(path): path for path in tree.files}
    for change in _by_file(changes, tree):
        reason = names.reason_against(change)
        other = known.setdefault(_folded(change.path), change.path) if not reason else change.path
        if other != change.path:
            reason = f"differs from {other} only in case or accents"
        if reason:
            dropped[change.path] = Dropped(change.path, reason)
        else:
            kept[change.path] = dataclasses.replace(change, mode=0o755 if change.mode & stat.S_IXUSR else 0o644)
    return Allowed(tuple(kept[path] for path in sorted(kept)), tuple(dropped[path] for path in sorted(dropped)))


def allow_for_task(task: CodeTask, changes: Iterable[FileChange], *, oracle: Iterable[FileChange], reserved: Collection[str]) -> Allowed:
    """The same under a task's settings and its solution's changes. Of configuration that both change, the solution's version is kept."""
    of_oracle = {change.path: change for change in oracle}
    allowed = allow_changes(
        changes,
        pristine=task.workspace,
        oracle_paths=frozenset(of_oracle),
        globs=task.settings.allow,
        import_roots=task.settings.import_roots,
        reserved=reserved,
    )
    kept = [of_oracle.get(change.path, change) if _is_configuration(change.path) else change for change in allowed.kept]
    return dataclasses.replace(allowed, kept=tuple(kept))


@dataclass(frozen=True)
class _Pristine:
    """What lies in a workspace, by path."""

    files: frozenset[str]
    directories: frozenset[str]
    links: frozenset[str]
    import_roots: frozenset[str]

    @classmethod
    def read(cls, tree: Path, import_roots: Sequence[str]) -> _Pristine:
        files: set[str] = set()
        links: set[str] = set()
        directories = {""}
        for folder, below, names in os.walk(tree):
            for name in (*below, *names):
                path = (Path(folder) / name).relative_to(tree).as_posix()
                mode = (Path(folder) / name).lstat().st_mode
                (links if stat.S_ISLNK(mode) else directories if stat.S_ISDIR(mode) else files).add(path)
        roots = {_root_as_empty(PurePosixPath(root).as_posix()) for root in import_roots}
        return cls(frozenset(files), frozenset(directories), frozenset(links), frozenset(roots))

    @cached_property
    def packages(self) -> frozenset[str]:
        """Directories that modules are imported from by a dotted name: those with an __init__.py, and others with source, but for roots."""
        sources = {_parent(path) for path in self.files if path.endswith(".py") and not is_test_module(path)}
        marked = {_parent(path) for path in self.files if path.rpartition("/")[2] == "__init__.py"}
        return frozenset(marked | (sources - self.import_roots - {""}))

    @cached_property
    def bases(self) -> frozenset[str]:
        """Directories that may be on sys.path: roots, the workspace, and those of test files outside packages."""
        of_tests = {_parent(path) for path in self.files if is_test_module(path)}
        return self.import_roots | {""} | {folder for folder in of_tests if f"{folder}/__init__.py" not in self.files}

    def has_module(self, base: str, name: str) -> bool:
        """Whether `import name` finds something in this directory."""
        place = f"{base}/{name}" if base else name
        return f"{place}.py" in self.files or f"{place}/__init__.py" in self.files


@dataclass(frozen=True)
class _Names:
    """Judges one change by its name."""

    tree: _Pristine
    oracle_paths: frozenset[str]
    globs: tuple[str, ...]
    reserved: frozenset[str]

    def reason_against(self, change: FileChange) -> str:
        """'' if it is kept."""
        return self._never(change) or self._unless_named(change.path) or self._not_a_place(change.path)

    def _never(self, change: FileChange) -> str:
        path = change.path
        if not is_inside(path):
            return "leads out of the workspace, or is longer than a path may be"
        if not path.isprintable() or "\\" in path:
            return "a name with odd characters"
        if change.kind not in ("file", "deleted"):
            return "a link" if change.kind == "symlink" else "a device, socket or pipe"
        parents = {str(parent) for parent in PurePosixPath(path).parents}
        if parents & self.tree.links or path in self.tree.links:
            return "replaces a link of the workspace, or leads through one"
        if parents & self.tree.files or (change.kind == "file" and path in self.tree.directories):
            return "a file where the workspace has a directory, or the reverse"
        return _kind_of_name(_folded(path).split("/")) or self._shadowing(path)

    def _unless_named(self, path: str) -> str:
        *above, _ = _folded(path).split("/")
        if self._is_allowed(path):
            return ""
        if _TEST_DIRECTORIES & set(above):
            return "in a directory of tests, and tests come from the task"
        if _is_configuration(path) and path not in self.oracle_paths:
            return "configuration comes from the task"
        return ""

    def _not_a_place(self, path: str) -> str:
        is_package = any(_root_as_empty(str(parent)) in self.tree.packages for parent in PurePosixPath(path).parents)
        if path in self.oracle_paths or path in self.tree.files or is_package or self._is_allowed(path):
            return ""
        return "not a place that this task's solution changes"

    def _is_allowed(self, path: str) -> bool:
        return any(fnmatchcase(path, pattern) for pattern in self.globs)

    def _shadowing(self, path: str) -> str:
        """A new module that would be imported instead of one of Python's, of the verdict's, or of another root."""
        place = path.removesuffix("/__init__.py") if path.endswith("/__init__.py") else path.removesuffix(".py")
        base, name = _parent(place), place.rpartition("/")[2]
        if place == path or base not in self.tree.bases or self.tree.has_module(base, name):
            return ""
        is_elsewhere = any(self.tree.has_module(other, name) for other in self.tree.bases)
        return f"would be imported in place of the module {name}" if name in self.reserved or is_elsewhere else ""


def _kind_of_name(parts: Sequence[str]) -> str:
    """Why no file may be called so, whoever changes it."""
    if is_test_module(parts[-1]) or "conftest" in (parts[-1].partition(".")[0], *parts[:-1]):
        return "tests come from the task"
    for part in parts:
        if _START_UP.match(part):
            return "would run when Python or pytest starts"
        if _COMPILED.match(part):
            return "compiled code"
        if _VERSION_CONTROL.match(part):
            return "belongs to version control"
    return ""


def _by_file(changes: Iterable[FileChange], tree: _Pristine) -> Iterator[FileChange]:
    """Files only: a deleted directory is the deletion of each of its files, since some of them may not be deleted."""
    for change in changes:
        if change.kind == "deleted" and change.path in tree.directories:
            below = f"{change.path}/"
            yield from (FileChange(path, "deleted") for path in tree.files | tree.links if path.startswith(below))
        elif change.kind != "directory":
            yield change


def _is_configuration(path: str) -> bool:
    return _folded(path).rpartition("/")[2] in _CONFIGURATION


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _root_as_empty(path: str) -> str:
    return "" if path == "." else path


def _folded(path: str) -> str:
    """As the least careful file system compares names."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
