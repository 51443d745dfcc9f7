"""Success rates: intervals, what counts as a success, and what is left out."""

from __future__ import annotations

import asyncio

import pytest

from trunkline.errors import InfraError
from trunkline.evals.heldout import evaluate
from trunkline.evals.statistics import proportion
from trunkline.protocols import Attempt, EpisodeSpec
from trunkline.types import Episode, Failure, Message, Reward, Task


class Numbered:
    """A taskset whose tasks are their numbers."""

    name = "numbered"

    def task(self, split: str, index: int) -> Task:
        return Task(f"{split}/{index}", self.name, "even" if index % 2 == 0 else "odd", (Message("user", str(index)),), {})

    def open(self, task: Task) -> Attempt:
        raise AssertionError("not opened here")


class EvenWins:
    """A runner: even tasks earn 1, odd ones 0, and those in `broken` fail."""

    def __init__(self, broken: range = range(0)) -> None:
        self.broken = broken
        self.num_running = self.most_running = 0

    async def run(self, spec: EpisodeSpec) -> Episode:
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        await asyncio.sleep(0)
        self.num_running -= 1
        index = int(spec.task.task_id.split("/")[1])
        name = f"{spec.group_id}-a00"
        if index in self.broken:
            failure = Failure("engine", "EngineError", "broken on purpose")
            return Episode(name, spec.group_id, spec.task.task_id, 0, "failed", (), (), (), failure)
        return Episode(name, spec.group_id, spec.task.task_id, 0, "finished", (), (), (Reward("outcome", float(index % 2 == 0), ""),))


def test_wilson_interval_of_a_textbook_case() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263 is .2553 to .3662.
    rate = proportion(81, 263)
    assert (round(rate.low, 4), round(rate.high, 4)) == (0.2553, 0.3662)


def test_interval_of_no_success_starts_at_zero_and_is_not_empty() -> None:
    rate = proportion(0, 512)
    assert rate.low == 0 and 0.005 < rate.high < 0.01


def test_kinds_are_counted_apart_and_concurrency_is_bounded() -> None:
    runner = EvenWins()
    seen: list[int] = []
    result = asyncio.run(
        evaluate(
            runner,
            Numbered(),
            name="start",
            split="heldout",
            num_episodes=20,
            concurrency=4,
            seed=1,
            progress=lambda done, success: seen.append(done),
        )
    )
    assert result.success.value == 0.5
    assert {kind: rate.value for kind, rate in result.by_kind.items()} == {"even": 1.0, "odd": 0.0}
    assert runner.most_running <= 4 and seen == list(range(1, 21))


def test_episodes_without_a_verdict_are_left_out_of_the_rate_and_counted() -> None:
    result = asyncio.run(evaluate(EvenWins(range(10)), Numbered(), name="start", split="heldout", num_episodes=20, concurrency=8, seed=1))
    assert result.num_failed == 10 and result.success.n == 10 and result.success.value == 0.5


def test_an_evaluation_without_any_verdict_names_the_first_cause() -> None:
    with pytest.raises(InfraError, match="broken on purpose"):
        asyncio.run(evaluate(EvenWins(range(5)), Numbered(), name="start", split="heldout", num_episodes=5, concurrency=8, seed=1))
