"""The largest and the smallest value of each window."""

from collections.abc import Sequence
from typing import TypeVar

from rolling.windows import check_size, windows

Item = TypeVar("Item")


def rolling_max(values: Sequence[Item], size: int) -> list[Item]:
    """The largest value of each window of `size` neighbours; none if there are fewer values.

    Values are anything that can be compared with each other. Of equal values, the leftmost in the window counts. Raises
    ValueError if `size` is below 1.
    """
    check_size(size)
    return [max(window) for window in windows(values, size)]


def rolling_min(values: Sequence[Item], size: int) -> list[Item]:
    """The smallest value of each window, as `rolling_max` gives the largest."""
    check_size(size)
    return [min(window) for window in windows(values, size)]


def rolling_peaks(values: Sequence[Item], size: int) -> list[int]:
    """The places of values that are larger than all others of each window that they are in, from left to right.

    Near an end of `values`, windows that would reach beyond it don't count. There are no peaks if there are fewer values
    than `size`.
    """
    check_size(size)
    peaks: list[int] = []
    for place, value in enumerate(values):
        first = max(0, place - size + 1)
        last = min(place, len(values) - size)
        around = values[first : last + size]
        if last >= first and not any(value <= other for at, other in enumerate(around, start=first) if at != place):
            peaks.append(place)
    return peaks
