"""What a draft changes, as texts: sources and hidden tests before and after, and every word of the workspace. Owns no judgement."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.swe.sheets import function_of
from trunkline.types import FileChange

CODE = frozenset({".py", ".pyi", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx"})
"""Suffixes of files whose lines are a solution; the rest is documentation, configuration, data."""
WORD = re.compile(r"[A-Za-z_$][\w$]*")
"""An identifier, in most languages."""

_READ = CODE | {".md", ".rst", ".txt", ".toml", ".cfg", ".ini", ".json", ".yaml", ".yml", ".in"}
_MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Texts:
    """A file on both sides."""

    before: str
    """'' if it is not there."""
    after: str
    """'' if it is not there."""

    @cached_property
    def added(self) -> tuple[str, ...]:
        """Lines that are there only after the change, without the space around them."""
        old = {line.strip() for line in self.before.splitlines()}
        return tuple(line for raw in self.after.splitlines() if (line := raw.strip()) and line not in old)


@dataclass(frozen=True)
class Change:
    """A draft read once, for all that is asked about its words."""

    sources: Mapping[str, Texts]
    """Code that the solution touches, by path."""
    tests: Mapping[str, Texts]
    """Judged test files, by path: as the workspace has them, and as they are hidden."""
    paths: frozenset[str]
    """Of all files that the workspace holds."""
    known: frozenset[str]
    """Words that stand in any text of the workspace: whoever works there can find them."""
    known_code: str
    """All code of the workspace."""
    new_data: frozenset[str] = frozenset()
    """Files of the solution that are no code and that the workspace does not have."""

    @cached_property
    def packages(self) -> frozenset[str]:
        """Names of Python packages and modules at the top of the project: 'toolz'."""
        files = {PurePosixPath(path) for path in {*self.paths, *self.sources} if path.endswith(".py")}
        folders = {path.parent for path in files if path.name == "__init__.py"}
        tops = {folder.name for folder in folders if folder.parent not in folders}
        tops |= {path.stem for path in files if path.parent not in folders}
        return frozenset(tops - {"", "tests", "test", "setup", "conftest"})

    @cached_property
    def added_words(self) -> frozenset[str]:
        """Words of changed sources that no text of the workspace has."""
        return frozenset(word for texts in self.sources.values() for line in texts.added for word in WORD.findall(line)) - self.known

    @cached_property
    def test_words(self) -> frozenset[str]:
        """Words of the hidden tests."""
        return frozenset(word for texts in self.tests.values() for word in WORD.findall(texts.after))


def read_change(draft: Draft) -> Change:
    """Reads a draft's workspace, solution and tests. Files that are no text, or too large, are passed over."""
    texts = dict(_workspace(draft.workspace))
    known = frozenset(word for text in texts.values() for word in WORD.findall(text))
    code = "\n".join(text for path, text in texts.items() if PurePosixPath(path).suffix in CODE)
    sources = {change.path: _texts(change, texts) for change in draft.solution if PurePosixPath(change.path).suffix in CODE}
    hidden = {change.path: _texts(change, texts) for change in draft.hidden_tests if change.kind == "file"}
    kept = {path: Texts(texts[path], texts[path]) for path in draft.test_files if path in texts and path not in hidden}
    data = {change.path for change in draft.solution if change.kind == "file" and PurePosixPath(change.path).suffix not in CODE}
    new_data = frozenset(path for path in data if not (draft.workspace / path).exists())
    return Change(sources, hidden | kept, frozenset(texts), known, code, new_data)


def failing(draft: Draft) -> dict[str, list[str]]:
    """Functions that fail before the change, by file: {'tests/test_a.py': ['TestA::test_b']}, in the order of their names.

    Of tests that are named 'test/a.test.js > group > name', what follows the file.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(draft.tested.fail_to_pass):
        path, _, function = function_of(name).partition("::") if "::" in name else name.partition(" > ")
        if function not in found.setdefault(path, []):
            found[path].append(function)
    return found


def _texts(change: FileChange, workspace: Mapping[str, str]) -> Texts:
    after = change.content.decode(errors="replace") if change.kind == "file" else ""
    return Texts(workspace.get(change.path, ""), after)


def _workspace(tree: Path) -> Iterator[tuple[str, str]]:
    for folder, directories, names in os.walk(tree):
        directories[:] = sorted(name for name in directories if name not in (".git", "node_modules", "__pycache__"))
        for name in sorted(names):
            place = Path(folder) / name
            if place.suffix in _READ and place.is_file() and not place.is_symlink() and place.stat().st_size <= _MOST_BYTES:
                yield place.relative_to(tree).as_posix(), place.read_bytes().decode(errors="replace")
