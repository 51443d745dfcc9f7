"""What a run costs: CPU seconds, wall seconds and memory of this process and all its descendants. Owns no budget."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator

import psutil


class ProcessMeter:
    """Counts from the start of this process, imports included, so that a run's figure hides nothing.

    Descendants count while they live and after they were waited for. What a live process has used is read from the
    system in ticks of 10 ms. A grandchild whose parent ended first is counted up to the last reading that saw it.
    """

    def __init__(self) -> None:
        self._highest_s = 0.0
        self._excluded_s = 0.0
        self._excluded_since_s: float | None = None
        self._peak_rss_bytes = 0

    def cpu_seconds(self) -> float:
        """User + system seconds of this process and all its descendants; never falls."""
        # Top down, parent before child: a child that is reaped between two readings is missed once, never counted twice,
        # and the highest reading so far stands in until the next.
        own = os.times()
        reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
        total = own.user + own.system + reaped.ru_utime + reaped.ru_stime
        total += sum(_cpu_seconds(process) for process in psutil.Process().children(recursive=True))
        self._highest_s = max(self._highest_s, total)
        return self._highest_s

    def counted_cpu_seconds(self) -> float:
        """cpu_seconds() without what was used inside excluded()."""
        now = self.cpu_seconds() if self._excluded_since_s is None else self._excluded_since_s
        return now - self._excluded_s

    @contextlib.contextmanager
    def excluded(self) -> Iterator[None]:
        """CPU that *any* process of the run uses inside the block is not counted: for evaluations, with training at rest."""
        assert self._excluded_since_s is None, "excluded() blocks do not nest"
        self._excluded_since_s = self.cpu_seconds()
        try:
            yield
        finally:
            self._excluded_s += self.cpu_seconds() - self._excluded_since_s
            self._excluded_since_s = None

    def wall_seconds(self) -> float:
        """Seconds since this process started."""
        return time.time() - psutil.Process().create_time()

    def sample_rss(self) -> int:
        """Resident bytes now, summed over all processes; a page that two of them share is counted in both."""
        root = psutil.Process()
        total = sum(_rss_bytes(process) for process in (root, *root.children(recursive=True)))
        self._peak_rss_bytes = max(self._peak_rss_bytes, total)
        return total

    @property
    def peak_rss_bytes(self) -> int:
        """The highest sample_rss() so far; 0 before the first."""
        return self._peak_rss_bytes


def _cpu_seconds(process: psutil.Process) -> float:
    """Seconds of a live process and of the children it has waited for; 0 if it has just ended."""
    try:
        times = process.cpu_times()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def _rss_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
