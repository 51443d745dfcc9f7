"""What an earlier incarnation of a run left to a pool. Owns the shape of it; resume.py reads it from the journal, pool.py works it off.

consumed for steps after the checkpoint ──► redeliveries: handed out again first, step by step
finished, not consumed ───────────────────► finished: taken by the window like any other
submitted, attempts missing ──────────────► unfinished: only what is missing is run again
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trunkline.types import Group


@dataclass(frozen=True)
class KilledCalls:
    """Completions whose attempt never ended, because its run did."""

    num_completions: int = 0
    """How many."""
    num_tokens: int = 0
    """Tokens sampled in them."""

    def __add__(self, other: KilledCalls) -> KilledCalls:
        return KilledCalls(self.num_completions + other.num_completions, self.num_tokens + other.num_tokens)


@dataclass(frozen=True)
class Redelivery:
    """One step that was taken after the checkpoint: what it was made of."""

    step: int
    """The policy step that it makes."""
    groups: tuple[Group, ...]
    """Its groups, in order of consumption."""
    degenerate: tuple[Group, ...]
    """Those without gradient that were consumed while it was collected; they stay consumed and are only counted again."""


@dataclass(frozen=True)
class UnfinishedGroup:
    """A group of which some attempts are missing; `group.episodes` holds those that need nothing more."""

    group: Group
    """Its task and the attempts that ended for good."""
    num_missing: int
    """Attempts that have to be run."""
    num_tries: Mapping[int, int] = field(default_factory=dict)
    """Missing attempt -> how often it ended in a failure on our side; 0 where it is not named."""


@dataclass(frozen=True)
class Backlog:
    """Where a pool starts. The default is the start of a run."""

    step: int = 0
    """Optimiser steps behind the restored weights."""
    num_submitted: int = 0
    """Groups submitted so far; also the next index."""
    redeliveries: tuple[Redelivery, ...] = ()
    """Steps step + 1, step + 2, ... without gaps."""
    degenerate: tuple[Group, ...] = ()
    """Consumed without gradient since the last of these steps was taken."""
    finished: tuple[Group, ...] = ()
    """Finished and not consumed, by index."""
    unfinished: tuple[UnfinishedGroup, ...] = ()
    """Submitted and not finished, by index."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What PoolStats counts, up to here: trained (in steps up to `step`), degenerate, retried, and attempts by status."""
    killed: KilledCalls = KilledCalls()
    """Completions that no attempt will count, because theirs was cut off by the end of an incarnation."""

    @property
    def num_missing_attempts(self) -> int:
        """Attempts of unfinished groups that have to be run."""
        return sum(unfinished.num_missing for unfinished in self.unfinished)
