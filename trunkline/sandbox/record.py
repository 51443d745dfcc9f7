"""What was done with one sandbox, act by act, for the episode's record. Owns the list; does nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from trunkline.types import SandboxAct

MAX_DETAIL = 2000
MAX_ACTS = 10_000
"""More are counted, not kept."""


@dataclass
class OpenAct:
    """An act that is going on; who does it fills in what comes of it."""

    status: int | None = None
    """Exit status."""
    num_bytes: int = 0
    """Moved."""


class ActLog:
    """Acts in the order of their ends."""

    def __init__(self) -> None:
        self._acts: list[SandboxAct] = []
        self._num_left_out = 0

    @property
    def acts(self) -> tuple[SandboxAct, ...]:
        """All so far."""
        if not self._num_left_out:
            return tuple(self._acts)
        return (*self._acts, SandboxAct("record", f"{self._num_left_out} more acts are not kept"))

    def add(self, op: str, detail: str, *, status: int | None = None, seconds: float = 0.0, num_bytes: int = 0) -> None:
        """One act that is over."""
        if len(self._acts) >= MAX_ACTS:
            self._num_left_out += 1
            return
        self._acts.append(SandboxAct(op, detail[:MAX_DETAIL], status, round(seconds, 6), num_bytes))

    @contextmanager
    def timed(self, op: str, detail: str) -> Iterator[OpenAct]:
        """An act as long as the block; if it raises, the record says what."""
        act = OpenAct()
        started = time.monotonic()
        try:
            yield act
        except BaseException as error:
            self.add(op, f"{detail} -> {type(error).__name__}: {error}", seconds=time.monotonic() - started)
            raise
        self.add(op, detail, status=act.status, seconds=time.monotonic() - started, num_bytes=act.num_bytes)
