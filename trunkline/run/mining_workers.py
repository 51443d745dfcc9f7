"""Processes that mine: each works on one order at a time. Owns their starts, their ends and their wire; the work is mining_worker.py's.

order (a candidate or a pair, a line of JSON) ─► worker ─► the ledger's entry (a line), before it any words for people (a line each)
                                                   └─ dies, or takes too long ─► the order is rejected for it, and a new worker starts
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from trunkline.errors import TrunklineError
from trunkline.tasks.factory.candidate import Order, Rejected
from trunkline.tasks.factory.ledger import Entry

_MAX_LINE_BYTES = 2**24
_END_TIMEOUT_S = 15.0
_WORDS = 300


class MiningFailed(TrunklineError):
    """A worker cannot work at all, as no worker could: the message is its own."""


class Worker:
    """One process; started at its first order, and again after it died."""

    def __init__(self, setup: Mapping[str, Any], told: Callable[[str], None]) -> None:
        self._setup = msgspec.json.encode(setup) + b"\n"
        self._told = told
        self._process: asyncio.subprocess.Process | None = None

    async def work_on(self, order: Order, *, timeout_s: float) -> Entry:
        """What became of it. Raises MiningFailed if the worker cannot be set up."""
        process = self._process or await self._start()
        try:
            async with asyncio.timeout(timeout_s):
                line = await _ask(process, msgspec.json.encode(order) + b"\n")
                while line.startswith(b'"'):
                    self._told(msgspec.json.decode(line, type=str))
                    line = await _answer(process)
        except TimeoutError:
            await self.end()
            return _lost(order, "out of time", f"the work on it took longer than {timeout_s:.0f} s")
        except ConnectionError as error:
            words = await self._last_words()
            return _lost(order, "the worker died", words or str(error))
        return msgspec.json.decode(line, type=Entry)

    async def end(self) -> None:
        """Kills it with all that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _END_TIMEOUT_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def _start(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "trunkline.run.mining_worker",
            stdin=pipe, stdout=pipe, stderr=pipe, limit=_MAX_LINE_BYTES, start_new_session=True,
        )  # fmt: skip
        try:
            answer = msgspec.json.decode(await _ask(process, self._setup))
        except ConnectionError:
            raise MiningFailed(f"a worker cannot start: {await self._last_words()}") from None
        if answer != "ready":
            await self.end()
            raise MiningFailed(str(answer))
        return process

    async def _last_words(self) -> str:
        """Of one that is dead."""
        process, self._process = self._process, None
        assert process is not None and process.stderr is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        said = (await process.stderr.read()).decode(errors="replace").strip()
        await process.wait()
        return f"{_how(process.returncode)}{': ' if said else ''}{said[-_WORDS:]}"


@asynccontextmanager
async def workers(
    setup: Mapping[str, Any], num: int, *, told: Callable[[str], None] = lambda words: None
) -> AsyncIterator[tuple[Worker, ...]]:
    """So many workers, which say to `told` what they wait for; none is left behind."""
    made = tuple(Worker(setup, told) for _ in range(num))
    try:
        yield made
    finally:
        await asyncio.shield(asyncio.gather(*(worker.end() for worker in made)))


async def _ask(process: asyncio.subprocess.Process, line: bytes) -> bytes:
    """Its first answer. Raises ConnectionError if it is dead."""
    assert process.stdin is not None
    process.stdin.write(line)
    await process.stdin.drain()
    return await _answer(process)


async def _answer(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    answer = await process.stdout.readline()
    if not answer.endswith(b"\n"):
        raise ConnectionResetError("the worker closed its output")
    return answer


def _lost(order: Order, cause: str, detail: str) -> Entry:
    return Entry(
        order.order_id,
        order.date.isoformat(),
        dict(order.candidate.facts) if order.newer is None else {},
        rejected=(Rejected(order.order_id, "run", cause, detail),),
        merges=order.merges,
    )


def _how(status: int | None) -> str:
    return f"killed by signal {-status}" if status is not None and status < 0 else f"exit status {status}"
