import pytest
from intervals import clip, merge


def test_intervals_that_overlap_become_one():
    assert merge([(1, 5), (3, 8)]) == [(1, 8)]


def test_intervals_that_touch_become_one():
    assert merge([(4, 6), (1, 4)]) == [(1, 6)]


def test_a_gap_is_kept():
    assert merge([(7, 9), (1, 4)]) == [(1, 4), (7, 9)]


def test_an_empty_interval_is_left_out():
    assert merge([(3, 3)]) == []


def test_an_interval_that_ends_before_it_starts():
    with pytest.raises(ValueError):
        merge([(5, 2)])


def test_clipping_to_a_window():
    assert clip([(0, 4), (6, 12)], window=(2, 10)) == [(2, 4), (6, 10)]
