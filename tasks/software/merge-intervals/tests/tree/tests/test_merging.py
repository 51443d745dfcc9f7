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


def test_an_interval_inside_another_changes_nothing():
    assert merge([(1, 10), (2, 3)]) == [(1, 10)]


def test_several_intervals_inside_another():
    assert merge([(6, 7), (0, 20), (3, 5), (18, 25)]) == [(0, 25)]


def test_a_gap_after_a_nested_interval_is_kept():
    assert merge([(1, 10), (2, 3), (12, 15)]) == [(1, 10), (12, 15)]


def test_an_interval_with_the_same_start():
    assert merge([(4, 9), (4, 6), (8, 8)]) == [(4, 9)]


def test_the_input_is_not_changed():
    intervals = [(5, 9), (1, 2), (6, 7)]
    assert merge(intervals) == [(1, 2), (5, 9)]
    assert intervals == [(5, 9), (1, 2), (6, 7)]


def test_clipping_to_a_window():
    assert clip([(0, 4), (6, 12)], window=(2, 10)) == [(2, 4), (6, 10)]


def test_clipping_nested_intervals():
    assert clip([(0, 30), (5, 8)], window=(2, 20)) == [(2, 20)]
