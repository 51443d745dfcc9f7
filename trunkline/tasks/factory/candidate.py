"""The words of the factory: a change of a project that may be a task, what became of it, and why not. Owns no stage."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Side = Literal["before", "after"]
Stage = Literal["select", "environment", "run", "statement", "write", "certify"]
STAGES: tuple[Stage, ...] = ("select", "environment", "run", "statement", "write", "certify")
"""In the order of the work."""


@dataclass(frozen=True)
class SourceText:
    """What people wrote about a change. `SourceText("issue", "median is wrong", "For lists of ...")`."""

    role: Literal["pull request", "issue", "commit", "changelog"]
    """Where it stands."""
    title: str
    """Its first line; '' if it has none."""
    body: str
    """The rest."""


@dataclass(frozen=True)
class Candidate:
    """Two states of a project, one after a change of both source and tests."""

    candidate_id: str
    """Letters, digits, dots, hyphens and underscores; unique in its source, and always the same for the same change."""
    project: str
    """Such as 'pytoolz/toolz' or 'pypi/toolz'."""
    before: str
    """The state that an agent starts from, in words of the source: a commit, a version."""
    after: str
    """The state with the solution."""
    date: dt.datetime
    """When the change was made, UTC: what was published later is no part of its environment."""
    texts: tuple[SourceText, ...] = ()
    """What is known of why."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Further fields for the record, such as url and licence."""


@dataclass(frozen=True)
class Order:
    """Work for one worker: a candidate, or two valid ones that are to be one task."""

    candidate: Candidate
    """The one; of two the older."""
    newer: Candidate | None = None
    """What it is merged with; None: it is worked on by itself."""

    @property
    def order_id(self) -> str:
        """Of its line: the candidate's, or that of a pair."""
        return self.candidate.candidate_id if self.newer is None else f"{self.candidate.candidate_id}-and-{self.newer.candidate_id}"

    @property
    def merges(self) -> tuple[str, ...]:
        """The two candidates of a pair, the older first; () of one."""
        return () if self.newer is None else (self.candidate.candidate_id, self.newer.candidate_id)

    @property
    def date(self) -> dt.datetime:
        """Of the change, of two that of the newer."""
        return (self.newer or self.candidate).date


@dataclass(frozen=True)
class Rejected:
    """A change that is no task, and why."""

    candidate_id: str
    """Of the candidate, or of the change that did not become one."""
    stage: Stage
    """What it failed at."""
    cause: str
    """One of few fixed phrases, to be counted, such as 'no test turns'."""
    detail: str = ""
    """What a person needs to see why, in a line."""


class Rejection(Exception):
    """Ends a candidate's way through the factory. `Rejection("run", "no test turns", "12 tests pass before and after")`."""

    def __init__(self, stage: Stage, cause: str, detail: str = "") -> None:
        super().__init__(f"{stage}: {cause}{f' ({detail})' if detail else ''}")
        self.stage: Stage = stage
        self.cause = cause
        self.detail = detail


class Source(Protocol):
    """Where changes come from.

    >>> source = GitSource(Path("clones/toolz"))
    >>> [found async for found in source.candidates()]
    [Candidate("toolz-1a2b3c4d5e", ...), Rejected("toolz-0f...", "select", "changes no tests"), ...]
    """

    @property
    def name(self) -> str:
        """Of the project or projects, for people."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """What decides which candidates there are: plain JSON. A directory of results belongs to one identity."""
        ...

    def candidates(self) -> AsyncIterator[Candidate | Rejected]:
        """Each change in a fixed order, newest first. Raises ConfigError if the source cannot be read, with what to do."""
        ...

    async def lay(self, candidate: Candidate, side: Side, target: Path) -> None:
        """Writes the project's files of that side into a new directory, without history. Raises Rejection (select), ConfigError."""
        ...
