"""Which rows share which keys, by their slots alone."""

from __future__ import annotations

import random

import numpy as np
import pytest

from trunkline.engine.trunks import find_trunks


def _slots(*rows: list[int]) -> np.ndarray:
    slots_BL = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for row, slots in enumerate(rows):
        slots_BL[row, : len(slots)] = slots
    return slots_BL


def _found(slots_BL: np.ndarray, cached_B: list[int]) -> tuple[set[tuple[tuple[int, ...], int, int, int]], list[int]]:
    trunks, covered_B = find_trunks(slots_BL, np.array(cached_B))
    return {(tuple(sorted(one.rows_R.tolist())), one.start, one.end, one.level) for one in trunks}, covered_B.tolist()


def test_rows_that_share_nothing_have_no_trunk() -> None:
    assert _found(_slots(list(range(900)), list(range(1000, 1900))), [899, 899]) == (set(), [0, 0])


def test_a_short_shared_beginning_is_not_worth_a_call() -> None:
    shared = list(range(20))
    assert _found(_slots([*shared, 100], [*shared, 200]), [20, 20]) == (set(), [0, 0])


def test_trunks_nest_as_contexts_do() -> None:
    system, task = list(range(300)), list(range(1000, 1400))
    slots_BL = _slots([*system, *task, 5000], [*system, *task, 5001, 5002], [*system, 6000])
    assert _found(slots_BL, [700, 701, 300]) == ({((0, 1, 2), 0, 300, 0), ((0, 1), 300, 700, 1)}, [700, 700, 300])


def test_a_level_that_saves_too_little_belongs_to_the_trunks_below_it() -> None:
    system, one, other = list(range(10)), list(range(1000, 1500)), list(range(2000, 2500))
    slots_BL = _slots(*([*system, *branch, 5000 + row] for row, branch in enumerate((one, other, one, other))))
    assert _found(slots_BL, [510] * 4) == ({((0, 2), 0, 510, 0), ((1, 3), 0, 510, 0)}, [510] * 4)


def test_a_trunk_ends_where_the_first_row_computes_new_tokens() -> None:
    shared = list(range(600))
    assert _found(_slots(shared, [*shared, 700]), [400, 600]) == ({((0, 1), 0, 400, 0)}, [400, 400])


@pytest.mark.parametrize("seed", range(5))
def test_each_row_is_covered_from_its_beginning_without_gap_or_overlap(seed: int) -> None:
    rng = random.Random(seed)
    contexts: list[list[int]] = [[]]
    for number in range(40):
        contexts.append([*rng.choice(contexts), *range(10_000 * (number + 1), 10_000 * (number + 1) + rng.randrange(1, 400))])
    contexts = [[*context, 10**6 + number] for number, context in enumerate(contexts[1:])]
    slots_BL, cached_B = _slots(*contexts), np.array([len(context) - 1 for context in contexts])
    trunks, covered_B = find_trunks(slots_BL, cached_B)
    assert trunks
    for row in range(len(contexts)):
        mine = sorted((one.level, one.start, one.end) for one in trunks if row in one.rows_R)
        assert [level for level, _, _ in mine] == list(range(len(mine)))
        assert [start for _, start, _ in mine] == [0, *(end for _, _, end in mine)][: len(mine)]
        assert covered_B[row] == (mine[-1][2] if mine else 0) <= cached_B[row]
    for one in trunks:
        assert (slots_BL[one.rows_R, : one.end] == slots_BL[one.rows_R[0], : one.end]).all()
