"""Which KV slots are free. Owns the stack of free slot numbers; not the tensors, nor who holds a taken slot. No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class FreeSlots:
    """A stack: the slot given back last is taken first, so that few pages of the cache stay warm.

    >>> free = FreeSlots(4)
    >>> free.take(2).tolist(), len(free)
    ([0, 1], 2)
    """

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self._stack: Ints = np.arange(num_slots - 1, -1, -1)
        self._num_free = num_slots

    def __len__(self) -> int:
        return self._num_free

    def take(self, count: int) -> Ints:
        """`count` slots; the caller has made sure that they exist."""
        assert count <= self._num_free, f"{count} slots taken of {self._num_free} free ones"
        self._num_free -= count
        return self._stack[self._num_free : self._num_free + count][::-1].copy()

    def give(self, slots: Ints) -> None:
        """Takes back slots that nothing refers to any more."""
        assert self._num_free + len(slots) <= self.num_slots, "a slot was given back twice"
        self._stack[self._num_free : self._num_free + len(slots)] = slots[::-1]
        self._num_free += len(slots)
