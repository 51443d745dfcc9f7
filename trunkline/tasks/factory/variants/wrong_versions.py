"""Wrong versions of a change: faults in the functions that it changes, in a mixed order. Owns no run."""

from __future__ import annotations

import ast
import difflib
import random
from collections.abc import Collection, Sequence
from pathlib import Path

from trunkline.tasks.factory.variants.mutations import Mutation, find_mutations
from trunkline.tasks.swe.material import changed_functions
from trunkline.tasks.swe.syntax import parse
from trunkline.types import FileChange


def changed_sources(solution: Sequence[FileChange], workspace: Path) -> dict[str, tuple[str, str]]:
    """Python files that a change rewrites: path to text before and after. What is new, or cannot be read, is left out."""
    found: dict[str, tuple[str, str]] = {}
    for change in solution:
        place = workspace / change.path
        if change.kind == "file" and change.path.endswith(".py") and place.is_file():
            try:
                found[change.path] = place.read_bytes().decode(), change.content.decode()
                parse(found[change.path][0]), parse(found[change.path][1])
            except (UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
                found.pop(change.path, None)
    return found


def functions_changed(sources: dict[str, tuple[str, str]]) -> dict[str, frozenset[str]]:
    """By path, the functions that a change rewrites or adds, such as 'take' or 'Graph.walk'."""
    return {path: frozenset(changed_functions(before, after)) for path, (before, after) in sources.items()}


def wrong_versions(sources: dict[str, tuple[str, str]], rng: random.Random) -> list[Mutation]:
    """Faults in what a change rewrites, on lines that are new first; none that only takes the change back."""
    near: list[Mutation] = []
    far: list[Mutation] = []
    for path, names in functions_changed(sources).items():
        before, after = sources[path]
        new, was = _new_lines(before, after), _meaning(before)
        for mutation in find_mutations(after, path=path):
            if mutation.function in names and _meaning(mutation.source) != was:
                (near if mutation.line in new else far).append(mutation)
    rng.shuffle(near)
    rng.shuffle(far)
    return [*_by_line(near), *_by_line(far)]


def _by_line(mutations: Sequence[Mutation]) -> list[Mutation]:
    """One of each line, then a second one of each."""
    count: dict[tuple[str, int], int] = {}
    turns = []
    for mutation in mutations:
        place = mutation.path, mutation.line
        count[place] = count.get(place, 0) + 1
        turns.append(count[place])
    return [mutation for _, mutation in sorted(zip(turns, mutations, strict=True), key=lambda one: one[0])]


def _new_lines(before: str, after: str) -> Collection[int]:
    """Numbers of lines of `after` that `before` has not, from 1."""
    matcher = difflib.SequenceMatcher(None, before.splitlines(), after.splitlines(), autojunk=False)
    return {line + 1 for tag, _, _, start, end in matcher.get_opcodes() if tag != "equal" for line in range(start, end)}


def _meaning(text: str) -> str:
    """The functions' trees, without places and free-standing texts."""
    module = parse(text)
    for node in ast.walk(module):
        for name in ("body", "orelse", "finalbody"):
            if isinstance(body := getattr(node, name, None), list):
                body[:] = [one for one in body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
    return ast.dump(module)
