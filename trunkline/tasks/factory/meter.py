"""What work costs, by stage: CPU-seconds and wall time. Owns no stage."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from trunkline.tasks.factory.candidate import Stage


@dataclass
class StageMeter:
    """CPU-seconds of this process and of the children that it has waited for, by stage; what is outside stages belongs to the last one."""

    current: Stage = "select"
    """Under way, or the last."""
    spent: dict[Stage, float] = field(default_factory=dict)
    """By stage."""
    _started_s: float = field(default_factory=time.monotonic)

    @contextlib.contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """What is used inside counts for it."""
        self.current, before = name, _cpu_seconds()
        try:
            yield
        finally:
            self.spent[name] = self.spent.get(name, 0.0) + _cpu_seconds() - before

    def seconds(self) -> float:
        """Wall time since it was made."""
        return time.monotonic() - self._started_s


def _cpu_seconds() -> float:
    own, children = (resource.getrusage(which) for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
