"""The windows themselves."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def check_size(size: int) -> None:
    """ValueError if a window can't have `size` items."""
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")


def windows(values: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """All runs of `size` neighbours in `values`, from left to right; none if there are fewer values."""
    check_size(size)
    for start in range(len(values) - size + 1):
        yield values[start : start + size]
