"""Watches what no kernel mechanism holds for us: disk, wall time, and memory where there are no cgroups. Owns when to look.

A watchdog sees a limit passed only when it looks, so what is written between two looks can be over the limit: some seconds' writing
at most, and never more in one file than the limit (RLIMIT_FSIZE). It looks less often where nothing changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from trunkline.errors import SandboxError
from trunkline.sandbox.layers import Usage
from trunkline.sandbox.wire import Refused, ServerLink
from trunkline.types import SandboxLimits

MIN_INTERVAL_S = 0.25
IDLE_INTERVAL_S = 1.0
"""Where nothing changed since the last look."""
MAX_INTERVAL_S = 5.0
SILENCE_S = 60.0
"""A server inside that does not answer for so long is held by its agent: what only it can count has no limit then."""
SHARE_OF_TIME = 0.05
"""Looking takes at most this share of one core: a tree of many files is looked at less often."""


class Watchdog:
    """One a sandbox; `measure` says what it wrote. `spend` is called once, with the cause in words, from the event loop."""

    def __init__(self, measure: Callable[[], Awaitable[Usage]], limits: SandboxLimits, link: ServerLink, *, holds_memory: bool) -> None:
        self._measure = measure
        self._limits = limits
        self._link = link
        self._holds_memory = holds_memory
        self._watching: asyncio.Task[None] | None = None
        self._seen = (0, 0)
        self._answered_at = time.monotonic()

    def start(self, spend: Callable[[str], None]) -> None:
        """Looks until something is spent."""
        self._watching = asyncio.create_task(self._watch(spend))

    async def stop(self) -> None:
        """Looks no more."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self, spend: Callable[[str], None]) -> None:
        ends_at = time.monotonic() + self._limits.wall_s
        interval = MIN_INTERVAL_S
        while True:
            await asyncio.sleep(min(interval, max(0.0, ends_at - time.monotonic())))
            if time.monotonic() >= ends_at:
                spend(f"the sandbox lived for its {self._limits.wall_s:g} s and was ended")
                return
            started, seen = time.monotonic(), self._seen
            with contextlib.suppress(SandboxError, Refused):
                cause = await self._look()
                if cause:
                    spend(cause)
                    return
            least = min(IDLE_INTERVAL_S, 2 * interval) if self._seen == seen else MIN_INTERVAL_S
            interval = min(MAX_INTERVAL_S, max(least, (time.monotonic() - started) / SHARE_OF_TIME))

    async def _look(self) -> str:
        """What is spent, in words; '' if nothing is."""
        usage = await self._measure()
        head = await self._ask()
        deleted, resident = head.get("deleted_bytes"), head.get("resident_bytes")
        num_bytes = usage.num_bytes + (deleted if isinstance(deleted, int) else 0)
        self._seen = (num_bytes, resident if isinstance(resident, int) and self._holds_memory else 0)
        if num_bytes > self._limits.disk_bytes:
            return f"the sandbox wrote {num_bytes:,} bytes to disk, it may write {self._limits.disk_bytes:,}"
        if usage.num_files > self._limits.num_files:
            return f"the sandbox made {usage.num_files:,} files, it may make {self._limits.num_files:,}"
        if self._holds_memory and isinstance(resident, int) and resident > self._limits.memory_bytes:
            return f"the sandbox's processes hold {resident:,} bytes of memory, they may hold {self._limits.memory_bytes:,}"
        if time.monotonic() - self._answered_at > SILENCE_S:
            return f"the server inside the sandbox has not answered for {SILENCE_S:g} s"
        return ""

    async def _ask(self) -> dict[str, Any]:
        """What the server counts; nothing if it does not answer now, and then the rest is looked at all the same."""
        try:
            async with asyncio.timeout(MAX_INTERVAL_S):
                head, _ = await self._link.request("usage")
        except TimeoutError:
            return {}
        self._answered_at = time.monotonic()
        return head
