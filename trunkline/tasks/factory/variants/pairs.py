"""Which valid candidates are merged with which: neighbours in time, each into at most one task. Owns the choice; merge.py merges.

valid ones by date ─► pairs at most REACH places apart ─► the same source files, or side by side, first; the nearest first
                        ▲                                     └─► as many as share no candidate ─► worked on ─┐
                        └──────────────── those that became no task are free for others ──────────────────────┘
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from trunkline.tasks.factory.candidate import Candidate, Order
from trunkline.tasks.factory.ledger import Entry

SOURCE_FILES = "source_files"
"""The fact of an entry that has the paths of what a candidate's solution changes, a line each."""
REACH = 3
"""Places between two in the order of time; patches of changes further apart seldom fit."""
MOST_TRIES = 3
"""Pairs of one candidate."""


@dataclass(frozen=True)
class Valid:
    """A candidate that became a task."""

    candidate: Candidate
    """Which."""
    source_files: frozenset[str]
    """Paths of what its solution changes."""

    @classmethod
    def of(cls, candidate: Candidate, entry: Entry) -> Valid:
        """With what its line says."""
        return cls(candidate, frozenset(filter(None, entry.facts.get(SOURCE_FILES, "").split("\n"))))


def next_pairs(valid: Sequence[Valid], entries: Iterable[Entry]) -> list[Order]:
    """Pairs that can be worked on at once, since no candidate is in two of them; [] if there is nothing more to try.

    Args:
        valid: In the order of their source, newest first.
        entries: The ledger's: what was tried is not tried again, and what is in a merged task is in no other.
    """
    pairs = [entry for entry in entries if entry.merges]
    tried = {entry.merges for entry in pairs}
    taken = {one for entry in pairs if entry.made for one in entry.merges}
    tries = Counter(one for entry in pairs for one in entry.merges)
    taken |= {one for one, number in tries.items() if number >= MOST_TRIES}
    chosen = []
    for order in _in_reach(valid):
        if order.merges not in tried and taken.isdisjoint(order.merges):
            taken.update(order.merges)
            chosen.append(order)
    return chosen


def _in_reach(valid: Sequence[Valid]) -> Iterator[Order]:
    """All pairs of one project that are near enough, the best first."""
    ranked = []
    for project in dict.fromkeys(one.candidate.project for one in valid):
        own = [one for one in valid if one.candidate.project == project]
        own.sort(key=lambda one: one.candidate.date, reverse=True)
        for place, newer in enumerate(own):
            for distance, older in enumerate(own[place + 1 : place + 1 + REACH], 1):
                rank = 0 if older.source_files & newer.source_files else 1 if distance == 1 else 2
                ranked.append((rank, distance, place, Order(older.candidate, newer.candidate)))
    yield from (order for *_, order in sorted(ranked, key=lambda one: one[:3]))
