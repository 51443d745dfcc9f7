"""What a run costs: CPU seconds, wall seconds and memory of its processes, and how busy single ones are. Owns no budget."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator, Mapping

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


class UtilisationMeter:
    """Which share of the time some processes were computing, from one reading to the next.

    >>> meter = UtilisationMeter({"engine": engine_pid, "trainer": trainer_pid})
    >>> meter.read()  # doctest: +SKIP
    {'engine_utilisation': 0.91, 'trainer_utilisation': 0.34}
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._read_s = time.monotonic()
        self._cpu_s = self._now()

    def read(self) -> dict[str, float]:
        """CPU seconds of each process over the wall seconds since the last reading, or since the meter was made.

        Above 1 where a process computes in several threads; a process that is gone used nothing since.
        """
        elapsed_s, cpu_s = time.monotonic() - self._read_s, self._now()
        shares = {f"{name}_utilisation": max(0.0, cpu_s[name] - self._cpu_s[name]) / max(elapsed_s, 1e-9) for name in self._pids}
        self._read_s, self._cpu_s = self._read_s + elapsed_s, cpu_s
        return shares

    def _now(self) -> dict[str, float]:
        return {name: _cpu_seconds_of(pid) for name, pid in self._pids.items()}


def _cpu_seconds_of(pid: int) -> float:
    try:
        return _cpu_seconds(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return 0.0


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
