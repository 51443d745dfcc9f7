"""The value in the middle of each window."""

from collections.abc import Sequence
from typing import TypeVar

from rolling.windows import check_size, windows

Item = TypeVar("Item")


def rolling_median(values: Sequence[Item], size: int) -> list[Item]:
    """The median of each window of `size` neighbours; none if there are fewer values.

    The median is the value in the middle of the window in ascending order, and the lower of the two middle ones if `size` is
    even. Values are anything that can be compared with each other. Raises ValueError if `size` is below 1.
    """
    check_size(size)
    return [sorted(window)[(size - 1) // 2] for window in windows(values, size)]
