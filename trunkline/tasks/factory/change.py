"""A change between two trees, divided: the solution, hidden tests, and what is no part of a task. Owns no policy; that is swe/allowed.py's.

before, after ─► files that differ ─► by role: test ─► hidden tests
                                      others ─► the policy of verdicts ─► solution, or dropped
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.language import Language
from trunkline.tasks.swe.allowed import Dropped, allow_changes
from trunkline.tasks.swe.task import is_regular, walk
from trunkline.tasks.swe.tree import lay_tree
from trunkline.types import FileChange

_NEVER_COMPARED = frozenset({"__pycache__", ".git", ".hg", ".svn"})
_Files = Mapping[str, tuple[bytes, bool]]
"""By path: content, and whether it may be executed."""


@dataclass(frozen=True)
class Change:
    """What turns a project's state before into the state after, as a task has it."""

    solution: tuple[FileChange, ...]
    """Files written and deleted that are no tests; all of them can be laid for a verdict."""
    hidden_tests: tuple[FileChange, ...]
    """Test files written, with what lies beside them. A deleted one stays."""
    dropped: tuple[Dropped, ...] = ()
    """What no verdict would lay, such as .github/, and why."""

    @classmethod
    def between(cls, before: Path, after: Path, language: Language) -> Change:
        """Compares two trees. Raises Rejection (select) if source lies where only tests belong, or nothing of a solution is left."""
        old, new = _read(before), _read(after)
        changes = tuple(_change(path, new) for path in sorted({*old, *new}) if old.get(path) != new.get(path))
        tests = [change for change in changes if language.role_of(change.path) == "test"]
        others = [change for change in changes if language.role_of(change.path) != "test"]
        paths = frozenset(change.path for change in others)
        allowed = allow_changes(others, pristine=before, oracle_paths=paths)
        for one in allowed.dropped:
            if language.role_of(one.path) == "source":
                raise Rejection("select", "source that no verdict lays", f"{one.path}: {one.reason}")
        if not allowed.kept:
            raise Rejection("select", "changes no source", f"{len(changes)} files differ")
        return cls(allowed.kept, tuple(change for change in tests if change.kind == "file"), allowed.dropped)

    def lay(self, target: Path, before: Path, *, is_solved: bool) -> None:
        """Makes a tree as verdicts have it: the state before with the hidden tests, and the solution if it is solved."""
        lay_tree(target, pristine=before, changes=(*(self.solution if is_solved else ()), *self.hidden_tests))


def _read(tree: Path) -> _Files:
    found: dict[str, tuple[bytes, bool]] = {}
    for path in walk(tree):
        name = path.relative_to(tree)
        if is_regular(path) and _NEVER_COMPARED.isdisjoint(name.parts):
            found[name.as_posix()] = path.read_bytes(), bool(path.stat().st_mode & stat.S_IXUSR)
    return found


def _change(path: str, after: _Files) -> FileChange:
    if path not in after:
        return FileChange(path, "deleted")
    content, is_executable = after[path]
    return FileChange(path, "file", 0o755 if is_executable else 0o644, content)
