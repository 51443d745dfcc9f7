import pytest
from rolling import rolling_max, rolling_median, rolling_min, rolling_peaks, windows

VALUES = [4, 2, 12, 3, 8, 8, 1, 5]


def test_windows():
    assert list(windows("abcd", 3)) == ["abc", "bcd"]
    assert list(windows([1], 2)) == []


def test_the_largest_of_each_window():
    assert rolling_max(VALUES, 3) == [12, 12, 12, 8, 8, 8]
    assert rolling_max(["b", "a", "c"], 2) == ["b", "c"]


def test_the_smallest_of_each_window():
    assert rolling_min(VALUES, 3) == [2, 2, 3, 3, 1, 1]


def test_the_middle_of_each_window():
    assert rolling_median(VALUES, 3) == [4, 3, 8, 8, 8, 5]
    assert rolling_median(VALUES, 4) == [3, 3, 8, 3, 5]


def test_peaks():
    assert rolling_peaks(VALUES, 3) == [2]
    assert rolling_peaks([1, 5, 2, 2, 7, 3], 2) == [1, 4]


def test_too_few_values():
    assert rolling_max([1, 2], 3) == rolling_min([], 1) == rolling_median([1], 2) == rolling_peaks([1], 2) == []


@pytest.mark.parametrize("function", [rolling_max, rolling_min, rolling_median, rolling_peaks])
def test_a_window_of_nothing(function):
    with pytest.raises(ValueError):
        function([1, 2], 0)
