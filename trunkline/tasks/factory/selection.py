"""Which changes are worth building, by paths and size alone: source and tests together, of the size of one task. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.language import Language


@dataclass(frozen=True)
class Size:
    """The largest change that is still one task. Files that are neither source nor tests do not count."""

    most_files: int = 40
    """Source and test files that it touches."""
    most_lines: int = 1500
    """Lines of them that it adds and removes."""


def check_change(lines: Mapping[str, int], languages: Sequence[Language], size: Size) -> None:
    """Whether a change of these files may be a task: path to lines added and removed.

    Raises Rejection (select): 'changes no tests', 'changes no source', 'change too large'.
    """
    best: tuple[set[str], set[str]] = (set(), set())
    for language in languages:
        source = {path for path in lines if language.role_of(path) == "source"}
        tests = {path for path in lines if language.role_of(path) == "test"}
        best = max(best, (source, tests), key=lambda sides: (bool(sides[0] and sides[1]), bool(sides[1]), bool(sides[0])))
    source, tests = best
    if not tests:
        raise Rejection("select", "changes no tests", f"{len(lines)} files")
    if not source:
        raise Rejection("select", "changes no source", f"{len(lines)} files")
    num_lines = sum(lines[path] for path in source | tests)
    if len(source | tests) > size.most_files or num_lines > size.most_lines:
        said = f"{len(source | tests)} files and {num_lines} lines of source and tests"
        raise Rejection("select", "change too large", f"{said}; at most {size.most_files} and {size.most_lines}")
