"""The clock of a step's parts. Owns how time is taken on a device; what is timed is walk.py's and step.py's.

Work for a GPU is only queued: without waiting, a clock on the host would give all of it to whatever waits first.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch

Mark = float | torch.cuda.Event
"""A moment between two pieces of work."""


@dataclass(frozen=True)
class Clock:
    """Time on one device.

    >>> clock = Clock(torch.device("cpu"))
    >>> started = clock.mark()
    >>> clock.seconds([(started, clock.mark())]) >= 0
    True
    """

    device: torch.device
    """Where the work is done."""

    def mark(self) -> Mark:
        """Now; on CUDA the moment at which all that was queued so far is done, without waiting for it."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def seconds(self, spans: Iterable[tuple[Mark, Mark]]) -> float:
        """The sum of the times between marks; waits for the last of them."""
        return sum((_between(start, end) for start, end in spans), 0.0)

    def now(self) -> float:
        """Wall time once nothing is queued any more."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _between(start: Mark, end: Mark) -> float:
    if isinstance(start, float) or isinstance(end, float):
        assert isinstance(start, float) and isinstance(end, float), "marks of one clock"
        return end - start
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3
