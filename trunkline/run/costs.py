"""What a run has cost over all its incarnations. Owns the sum; what this process and its children use is metrics/processes.py's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from trunkline.metrics.processes import ProcessMeter


@dataclass(frozen=True)
class Costs:
    """Sums up to a moment; each row of metrics.jsonl that has these keys repeats them."""

    cpu_seconds: float = 0.0
    """User + system, of all processes, evaluations left out."""
    evaluation_cpu_seconds: float = 0.0
    """The same inside evaluations."""
    wall_seconds: float = 0.0
    """While a process of the run was there."""
    peak_rss_bytes: int = 0
    """The most memory at one time."""

    @classmethod
    def of_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Costs:
        """The last state in a run's rows. What a killed process used after its last row is in no row, and lost."""
        highest = cls()
        for row in rows:
            highest = cls(
                cpu_seconds=max(highest.cpu_seconds, row.get("cpu_seconds", 0.0)),
                evaluation_cpu_seconds=max(highest.evaluation_cpu_seconds, row.get("evaluation_cpu_seconds", 0.0)),
                wall_seconds=max(highest.wall_seconds, row.get("wall_seconds", 0.0)),
                peak_rss_bytes=max(highest.peak_rss_bytes, row.get("peak_rss_bytes", 0)),
            )
        return highest


class RunMeter:
    """Adds what this incarnation uses to what earlier ones did."""

    def __init__(self, meter: ProcessMeter, earlier: Costs) -> None:
        self._meter = meter
        self._earlier = earlier

    def excluded(self) -> AbstractContextManager[None]:
        """CPU that is used inside the block counts as evaluation."""
        return self._meter.excluded()

    def sample_rss(self) -> int:
        """Resident bytes now; they enter the peak."""
        return self._meter.sample_rss()

    def counted_cpu_seconds(self) -> float:
        """CPU seconds so far without evaluations."""
        return self._earlier.cpu_seconds + self._meter.counted_cpu_seconds()

    def costs(self) -> Costs:
        """All sums now."""
        earlier, meter = self._earlier, self._meter
        counted = meter.counted_cpu_seconds()
        return Costs(
            cpu_seconds=earlier.cpu_seconds + counted,
            evaluation_cpu_seconds=earlier.evaluation_cpu_seconds + meter.cpu_seconds() - counted,
            wall_seconds=earlier.wall_seconds + meter.wall_seconds(),
            peak_rss_bytes=max(earlier.peak_rss_bytes, meter.peak_rss_bytes),
        )
