"""Demonstrations of the lookup taskset: right without noise, wrong in the intended ways with it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset
from trunkline.types import Message, Task, Work


@pytest.fixture(scope="module")
def taskset() -> LookupTaskset:
    return LookupTaskset(LookupConfig())


def replayed_reward(taskset: LookupTaskset, task: Task, messages: Sequence[Message]) -> float:
    """Makes the conversation's calls on fresh tools, checks their shown results, and judges its last message."""
    attempt = taskset.open(task)
    results = {message.tool_call_id: message.content for message in messages if message.role == "tool"}
    for message in messages:
        for call in message.tool_calls:
            assert asyncio.run(attempt.tools.call(call.name, call.arguments)) == results[call.call_id]
    (reward,) = asyncio.run(attempt.verifier.verify(Work(messages[-1].content)))
    return reward.value


def num_calls(messages: Sequence[Message]) -> int:
    return sum(len(message.tool_calls) for message in messages)


def test_noiseless_demonstrations_are_always_right_and_shortest(taskset: LookupTaskset) -> None:
    rng = random.Random(0)
    for split in taskset.splits:
        for index in range(60):
            task = taskset.task(split, index)
            messages = taskset.demonstrate(task, rng, decision_noise=0.0)
            assert replayed_reward(taskset, task, messages) == 1.0
            assert num_calls(messages) == len(task.payload["needed"])
            assert messages[: len(task.prompt)] == task.prompt


def test_decisions_err_at_the_rate_and_in_the_proportions_asked(taskset: LookupTaskset) -> None:
    rng = random.Random(1)
    tasks = [task for task in (taskset.task("train", index) for index in range(1200)) if task.kind.startswith("one_hop")]
    right = longer = 0
    for task in tasks:
        messages = taskset.demonstrate(task, rng, decision_noise=0.4)
        right += replayed_reward(taskset, task, messages) == 1.0
        longer += num_calls(messages) > 1
    # One hop has two decisions, and only a wrong answer (0.4 * 0.7) spoils one: 0.72 ** 2 = 0.518 are right.
    assert 0.46 < right / len(tasks) < 0.58
    # A needless lookup before the lookup and then no wrong answer to it, or one before the answer.
    assert 0.13 < longer / len(tasks) < 0.27


def test_wrong_answers_have_the_right_form(taskset: LookupTaskset) -> None:
    rng = random.Random(2)
    for split in ("train", "train_comparison"):
        for index in range(200):
            task = taskset.task(split, index)
            given = taskset.demonstrate(task, rng, decision_noise=1.0)[-1].content
            assert given.count(" and ") == task.payload["answer"].count(" and ")
            if task.kind == "comparison":
                assert given in [entity for _, entity in task.payload["needed"]]


def test_no_demonstration_exceeds_the_call_budget() -> None:
    taskset = LookupTaskset(LookupConfig(call_budget=2, kinds={"two_hop.pair": 1}))
    rng = random.Random(3)
    for index in range(400):
        assert num_calls(taskset.demonstrate(taskset.task("train", index), rng, decision_noise=0.5)) <= 2


def test_the_asked_share_of_demonstrations_makes_independent_lookups_in_one_turn() -> None:
    taskset = LookupTaskset.from_options({"parallel_share": 0.3, "kinds": {"two_hop.pair": 1, "two_hop.capital_population": 1}})
    rng = random.Random(4)
    num_parallel = num_pairs = 0
    for index in range(200):
        task = taskset.task("train", index)
        messages = taskset.demonstrate(task, rng, decision_noise=0.0)
        assert replayed_reward(taskset, task, messages) == 1.0
        is_parallel = max(len(message.tool_calls) for message in messages) == 2
        assert not is_parallel or task.kind == "two_hop.pair"
        num_pairs += task.kind == "two_hop.pair"
        num_parallel += is_parallel
    assert 0.15 < num_parallel / num_pairs < 0.45
