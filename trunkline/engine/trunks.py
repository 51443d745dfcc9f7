"""Which rows of a step share which cached keys. Owns finding the trunks worth a call of their own; no tensors, no torch."""

# B rows (sequences), R rows of one trunk, L keys a row (padded)

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trunkline.engine.slots import Ints

Indices = NDArray[np.intp]

_LEAST_SAVED = 256  # keys that a trunk saves its rows; below, the calls and the merge that it adds cost more than they save


@dataclass(frozen=True)
class Trunk:
    """Keys that several rows see whole: all of their new tokens attend to them in one call."""

    rows_R: Indices
    """The rows."""
    start: int
    """Position of the first key; what lies before belongs to other trunks of the same rows."""
    end: int
    """Position after the last key."""
    level: int
    """How many trunks lie above it; trunks of one level have no row in common."""


def find_trunks(slots_BL: Ints, cached_B: Ints) -> tuple[list[Trunk], Ints]:
    """Shared beginnings of the rows, the ones above first, and covered_B: how many of each row's keys lie in its trunks.

    Trunks nest as the rows' contexts do: all rows share the system prompt, some of them a task, some of these a reply. A level that
    saves too little is left out; its keys then belong to the trunks below it.

    Args:
        slots_BL: slots of each row's keys in order of position. An equal slot at a position means an equal context up to there.
        cached_B: how many of its first keys all new tokens of a row see.
    """
    covered_B = np.zeros(len(slots_BL), np.int64)
    trunks: list[Trunk] = []
    open_groups: list[tuple[Indices, int, int]] = [(np.arange(len(slots_BL)), 0, 0)]
    while open_groups:
        rows_R, known, level = open_groups.pop()
        end = _shared_end(slots_BL, rows_R, known, int(cached_B[rows_R].min()))
        start = int(covered_B[rows_R[0]])
        if (len(rows_R) - 1) * (end - start) >= _LEAST_SAVED:
            trunks.append(Trunk(rows_R, start, end, level))
            covered_B[rows_R] = end
            level += 1
        open_groups += [(below_R, end, level) for below_R in _branches(slots_BL, rows_R[cached_B[rows_R] > end], end)]
    return trunks, covered_B


def _shared_end(slots_BL: Ints, rows_R: Indices, known: int, limit: int) -> int:
    """Position up to which the rows agree, at most `limit`; they agree up to `known`."""
    ahead_RL = slots_BL[rows_R, known:limit]
    differs_L = (ahead_RL != ahead_RL[0]).any(0)
    return known + int(differs_L.argmax()) if differs_L.any() else limit


def _branches(slots_BL: Ints, rows_R: Indices, position: int) -> Iterator[Indices]:
    """The rows by their slot at `position`, which all of them have; rows that are alone there share nothing more."""
    if len(rows_R) < 2:
        return
    order_R = np.argsort(slots_BL[rows_R, position], kind="stable")
    slot_R = slots_BL[rows_R[order_R], position]
    for branch_R in np.split(rows_R[order_R], np.flatnonzero(np.diff(slot_R)) + 1):
        if len(branch_R) > 1:
            yield branch_R
