"""The factory's plug point for languages: which files are tests, how an environment is made, how tests are run. Owns no language.

tree, date ─► recipes, best first ─► built in a sandbox ─► test files run on trees ─► Results
                  ▲      a recipe that does not build, or under which nothing runs: the next
                  └── repaired (only if asked for): a recipe with other values of its allowed fields
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Role = Literal["source", "test", "other"]
"""Of a file: other are configuration, documentation, data."""
Ended = Literal["passed", "failed", "error", "skipped", "xfailed", "xpassed"]


@dataclass(frozen=True)
class Results:
    """How the tests of some files ended."""

    outcomes: Mapping[str, Ended]
    """By the name that the test runner gives: 'tests/test_a.py::test_b[1]', 'test/a.test.js > group > name'."""
    complaint: str = ""
    """Why the run says nothing, in words: nothing could be collected, the runner refused its arguments, out of time; '' if it does."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Files that could not be loaded, and the last line of why."""
    durations: Mapping[str, float] = field(default_factory=dict)
    """Seconds by test, where the runner tells."""
    seconds: float = 0.0
    """Wall time."""

    @property
    def passed(self) -> frozenset[str]:
        """The tests that passed."""
        return frozenset(name for name, ended in self.outcomes.items() if ended == "passed")


class Recipe(Protocol):
    """How an environment is made: plain values, the same recipe always gives the same environment."""

    @property
    def words(self) -> str:
        """For people, such as 'Python 3.8.18, packages until 2021-03'."""
        ...

    def fields(self) -> Mapping[str, Any]:
        """The fields that a repair may change, as plain JSON."""
        ...

    def changed(self, fields: Mapping[str, Any]) -> Recipe:
        """With other values of them. Raises TaskError for any other field, or a value that is not allowed there."""
        ...


class Environment(Protocol):
    """What a recipe gave: packages in a cache of this host, by the hash of their content."""

    @property
    def recipe(self) -> Recipe:
        """What it was made of."""
        ...

    def files(self) -> Mapping[str, str]:
        """What a task's directory needs so that another host makes the same environment: path in the task to text."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """Fields of [metadata.trunkline] that verdicts need, such as import_roots and pytest_args."""
        ...


class Language(Protocol):
    """A language with its test runners.

    >>> language.role_of("tests/test_a.py")
    'test'
    >>> for recipe in language.recipes(tree, date): environment = await language.build(recipe, tree)
    >>> (await language.run(environment, (tree,), ["tests/test_a.py"], timeout_s=60)).passed
    frozenset({'tests/test_a.py::test_b'})
    """

    @property
    def name(self) -> str:
        """Such as 'python'."""
        ...

    def role_of(self, path: str) -> Role:
        """Of a file of a project."""
        ...

    def speaks(self, tree: Path) -> bool:
        """Whether the project is written in it."""
        ...

    def recipes(self, tree: Path, date: dt.datetime) -> Sequence[Recipe]:
        """What to try, in order. `tree` is the project after the change; nothing of it is run."""
        ...

    async def build(self, recipe: Recipe, tree: Path) -> Environment:
        """Makes it, or finds it in the cache. Raises Rejection (environment) with the last lines of the log, SandboxError."""
        ...

    async def run(self, environment: Environment, trees: Sequence[Path], files: Sequence[str], *, timeout_s: float) -> Results:
        """Runs test files in a sandbox over trees that lie over each other, later ones on top; what is written is thrown away.

        All test files that the trees have, if `files` is empty. Raises SandboxError.
        """
        ...
