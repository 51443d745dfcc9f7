"""Windowed FIFO over group indices, a pure state machine. Owns who may be consumed and who holds a slot; no IO, no time.

    submission order ──►   0   1   2   3   4   5   6   7   8   9
                                   ▲───── W ─────▲   ▲
                                 anchor              finished, but not yet takeable

A slot is held from submission until the group is discarded (no gradient) or its step is published (trained). After a resume
steps that are trained again hold theirs beside the groups that wait, so that there may be too few for a while: num_free < 0.

With P groups a step, B = (S+1)P slots and W positions: at most W-1 younger groups are consumed before a group. When it is
submitted at most B-1 slots are held by others, so at most B+W-2 groups are consumed between its submission and its own
consumption, P of them a step: its age is at most floor((B+W-2)/P) = S + ceil((W-1)/P), and a schedule attains it if S > 0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum


class _State(Enum):
    RUNNING = "running"
    TRAINABLE = "finished, with gradient"
    DEGENERATE = "finished, without gradient"


class Window:
    """Which of the unconsumed groups may be consumed next.

    >>> window = Window(capacity=4, window=2)
    >>> [window.submit() for _ in range(4)]
    [0, 1, 2, 3]
    >>> window.finish(2, has_gradient=True)
    >>> window.take() is None  # 2 is not within two positions of the anchor 0
    True
    >>> window.finish(1, has_gradient=True)
    >>> window.take(), window.take()  # 1 may pass 0; 2 may not, because 0 stays the anchor
    (1, None)
    """

    def __init__(self, *, capacity: int, window: int) -> None:
        assert 1 <= window <= capacity, f"window must be 1..{capacity} (the capacity), got {window}"
        self._capacity = capacity
        self._window = window
        self._unconsumed: dict[int, _State] = {}  # in submission order: the first key is the anchor
        self._bypassed: dict[int, int] = {}  # of the unconsumed: how many younger groups were consumed before them
        self._unpublished: set[int] = set()
        self._num_submitted = 0
        self._max_bypass = 0
        self._num_stalls = 0
        self._is_stalled = False

    @classmethod
    def restored(
        cls, *, capacity: int, window: int, num_submitted: int, unconsumed: Mapping[int, bool | None], unpublished: Collection[int]
    ) -> Window:
        """A window in the middle of a run.

        Args:
            capacity: B.
            window: W.
            num_submitted: groups submitted so far.
            unconsumed: index -> whether it has a gradient, None while it is running; in submission order.
            unpublished: consumed groups whose steps are yet to be published.
        """
        restored = cls(capacity=capacity, window=window)
        states = {True: _State.TRAINABLE, False: _State.DEGENERATE, None: _State.RUNNING}
        restored._unconsumed = {index: states[has_gradient] for index, has_gradient in unconsumed.items()}
        # Of the younger ones all but those that still wait were consumed before it.
        num_waiting = len(unconsumed)
        restored._bypassed = {index: num_submitted - index - (num_waiting - place) for place, index in enumerate(unconsumed)}
        restored._unpublished = set(unpublished)
        restored._num_submitted = num_submitted
        restored._max_bypass = max(restored._bypassed.values(), default=0)
        return restored

    @property
    def num_submitted(self) -> int:
        """Groups submitted so far; also the next index."""
        return self._num_submitted

    @property
    def num_unconsumed(self) -> int:
        """Groups submitted and neither taken nor discarded."""
        return len(self._unconsumed)

    @property
    def num_free(self) -> int:
        """Slots that a new group may take; negative while more are held than there are."""
        return self._capacity - len(self._unconsumed) - len(self._unpublished)

    @property
    def anchor(self) -> int:
        """Index of the oldest unconsumed group; the next index if there is none."""
        return next(iter(self._unconsumed), self._num_submitted)

    @property
    def max_bypass(self) -> int:
        """The most younger groups that were consumed before one group, so far."""
        return self._max_bypass

    @property
    def num_stalls(self) -> int:
        """How often take() began to fail although a group with gradient was finished: outside the window, behind a slow older one."""
        return self._num_stalls

    def submit(self) -> int:
        """Takes a free slot and returns the new group's index."""
        assert self.num_free > 0, f"all {self._capacity} slots are held; submit only while num_free > 0"
        index = self._num_submitted
        self._num_submitted += 1
        self._unconsumed[index] = _State.RUNNING
        self._bypassed[index] = 0
        return index

    def finish(self, index: int, *, has_gradient: bool) -> None:
        """All attempts of a running group ended."""
        assert self._unconsumed.get(index) is _State.RUNNING, f"group {index} is not running: {self._unconsumed.get(index)}"
        self._unconsumed[index] = _State.TRAINABLE if has_gradient else _State.DEGENERATE

    def take(self) -> int | None:
        """Consumes the oldest finished group with gradient inside the window, which holds its slot until published; or None."""
        index = self._oldest_in_window(_State.TRAINABLE)
        is_stalled = index is None and _State.TRAINABLE in self._unconsumed.values()
        self._num_stalls += is_stalled and not self._is_stalled
        self._is_stalled = is_stalled
        if index is not None:
            self._consume(index)
            self._unpublished.add(index)
        return index

    def discard(self) -> list[int]:
        """Consumes every finished group without gradient inside the window, oldest first, and frees their slots at once."""
        discarded: list[int] = []
        while (index := self._oldest_in_window(_State.DEGENERATE)) is not None:
            self._consume(index)
            discarded.append(index)
        return discarded

    def publish(self, index: int) -> None:
        """The weights trained on a taken group are out: frees its slot."""
        self._unpublished.remove(index)

    def _oldest_in_window(self, state: _State) -> int | None:
        end = self.anchor + self._window
        for index, found in self._unconsumed.items():
            if index >= end:
                return None
            if found is state:
                return index
        return None

    def _consume(self, index: int) -> None:
        del self._unconsumed[index], self._bypassed[index]
        for older in self._unconsumed:
            if older > index:
                return
            self._bypassed[older] += 1
            self._max_bypass = max(self._max_bypass, self._bypassed[older])
