"""guarded: work ends with the watcher's cause, and nothing is left running."""

from __future__ import annotations

import asyncio

import pytest

from trunkline.errors import EngineError, EngineUnavailable
from trunkline.run.wiring import guarded


async def never() -> None:
    await asyncio.Event().wait()


async def dies(after_s: float) -> None:
    await asyncio.sleep(after_s)
    raise EngineError("the engine process ended")


async def answers() -> str:
    await asyncio.sleep(0)
    return "done"


async def loses_its_engine() -> None:
    raise EngineUnavailable("no answer")


def test_work_that_ends_gives_its_result_and_stops_the_watchers() -> None:
    async def scenario() -> None:
        assert await guarded(answers(), never()) == "done"
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


def test_a_watcher_that_raises_cancels_the_work() -> None:
    async def scenario() -> None:
        with pytest.raises(EngineError, match="process ended"):
            await guarded(never(), dies(0.01))
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


def test_the_cause_wins_over_its_symptom() -> None:
    async def scenario() -> None:
        with pytest.raises(EngineError, match="process ended"):
            await guarded(loses_its_engine(), dies(0.05))

    asyncio.run(scenario())


def test_cancelling_cancels_the_work_and_the_watchers() -> None:
    async def scenario() -> None:
        outer = asyncio.create_task(guarded(never(), never()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())
