"""A call from its client's side: wait for it, read it, or leave before it is read. Owns no sampling and no record.

A call goes on when its client leaves: what was sampled is recorded all the same. Official clients ask again after a broken
connection, so the answer waits in the session for the next request that asks the same, which then gets it without sampling anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Any

from trunkline.gateway.sessions import Session
from trunkline.gateway.wire import Ask, Committed

Samples = tuple[Committed, ...]


class Call:
    """What `Gateway.start` returns."""

    def __init__(self, session: Session, ask: Ask, task: asyncio.Task[Samples]) -> None:
        self._session = session
        self._ask = ask
        self._task = task

    @property
    def is_done(self) -> bool:
        """It has its answer, or failed."""
        return self._task.done()

    async def wait(self, timeout_s: float | None = None, *, unless: asyncio.Future[None] | None = None) -> None:
        """Returns when it is done, after `timeout_s`, or when `unless` is."""
        waited_for: list[asyncio.Future[Any]] = [self._task] if unless is None else [self._task, unless]
        await asyncio.wait(waited_for, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    def result(self) -> Samples:
        """The recorded answer of a call that is done. Raises what Gateway.start says."""
        return self._task.result()

    def leave(self) -> None:
        """The client went away without its answer."""
        self._session.unread[call_key(self._ask)] = self._task


def take_unread(session: Session, ask: Ask) -> asyncio.Task[Samples] | None:
    """The call that asked exactly this and whose client left; None if there is none, or if it failed."""
    task = session.unread.pop(call_key(ask), None) if session.unread else None
    has_failed = task is not None and task.done() and (task.cancelled() or task.exception() is not None)
    return None if has_failed else task


def call_key(ask: Ask) -> Hashable:
    """Equal for equal requests."""
    return (ask.messages, ask.tools.key, ask.may_call, ask.asked, ask.num_samples)


def mark_retrieved(task: asyncio.Task[Samples]) -> None:
    """The caller may be gone; its call's error is then nobody's, and asyncio need not report it as lost."""
    if not task.cancelled():
        task.exception()
