"""The credit that `show` prints is the credit that the trainer was given."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from trunkline.pool.journal import Journal
from trunkline.pool.journal_reader import JournalReader
from trunkline.run.credit import Credit, CreditBook
from trunkline.run.show_episode import print_episode
from trunkline.run.shuffle import shuffle_rewards
from trunkline.trainer.samples import samples_from_groups
from trunkline.types import (
    Completion,
    Episode,
    Failure,
    Generation,
    Group,
    Message,
    MessageNode,
    PolicyVersion,
    Reward,
    SamplingParams,
    Task,
    VersionSpan,
)

TASK = Task("t/0", "set", "kind", (Message("user", "?"),), {})


def an_episode(group_id: str, attempt: int, reward: float | None, *, suffix: str = "", drop_reason: str | None = None) -> Episode:
    token = 10 * attempt + 1
    generation = Generation((token,), (-0.5,), "stop", (VersionSpan(0, 1, PolicyVersion(1, 0)),))
    name = f"{group_id}-a{attempt:02d}{suffix}"
    call = Completion(f"{name}-c0", "s", (1, 2), generation, SamplingParams(8), 0, 1, drop_reason=drop_reason)
    nodes = (MessageNode(Message("user", "?"), None), MessageNode(Message("assistant", "!"), 0))
    rewards = () if reward is None else (Reward("outcome", reward, "made up"),)
    failure = Failure("infra", "Example", "made up") if reward is None else None
    return Episode(name, group_id, "t/0", attempt, "failed" if failure else "finished", (call,), nodes, rewards, failure)


def a_group(index: int, *rewards: float | None) -> Group:
    name = f"g{index:06d}"
    return Group(name, index, TASK, tuple(an_episode(name, attempt, reward) for attempt, reward in enumerate(rewards)))


MIXED, EARLIER, EQUAL, WAITING = a_group(0, 1.0, 0.0, None, 0.25), a_group(1, 0.0, 1.0), a_group(2, 1.0, 1.0), a_group(3, 1.0, 0.0)
RETRIED = an_episode("g000000", 3, None, suffix="-r0")
EVALUATED = an_episode("heldout.end-00000", 0, 1.0)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("credit") / "journal.sqlite"

    async def record() -> None:
        log = Journal.open(path)
        for group in (MIXED, EARLIER, EQUAL, WAITING):
            await log.record_group(group.group_id, group.index, group.task)
        await log.record_episode(RETRIED)
        for episode in (EVALUATED, *MIXED.episodes, *EARLIER.episodes, *EQUAL.episodes, *WAITING.episodes):
            await log.record_episode(episode)
        await log.record_consumed([EARLIER.group_id], step=1, reason="trained")
        await log.record_consumed([EQUAL.group_id], step=1, reason="degenerate")
        await log.record_consumed([MIXED.group_id], step=2, reason="trained")
        await log.close()

    asyncio.run(record())
    return path


def credit(journal: Path, episode: Episode, **recipe: Any) -> Credit:
    with JournalReader.open(journal) as reader:
        return CreditBook(reader, recipe).credit(reader.read_episode(episode.episode_id))


@pytest.mark.parametrize("baseline", ["leave_one_out", "group_normalised"])
@pytest.mark.parametrize("is_shuffled", [False, True])
def test_credit_is_the_advantage_of_the_training_samples(journal: Path, baseline: str, is_shuffled: bool) -> None:
    group = shuffle_rewards([MIXED], seed=5)[0] if is_shuffled else MIXED
    trained = {sample.token_ids[-1]: sample.advantages[-1] for sample in samples_from_groups([group], baseline=baseline)}
    stage = {"baseline": baseline, "shuffle_rewards": is_shuffled}
    for episode in MIXED.episodes:
        found = credit(journal, episode, seed=5, stage=stage)
        assert found.advantage == trained.get(episode.completions[0].generation.token_ids[0])
        assert found.step == (None if episode.reward is None else 2)
    assert len(trained) == 3


@pytest.mark.parametrize(
    ("episode", "reason"),
    [
        (MIXED.episodes[2], "episode failed"),
        (RETRIED, "a later try of this attempt counts"),
        (EQUAL.episodes[0], "group without gradient"),
        (WAITING.episodes[0], "not consumed by a step"),
        (EVALUATED, "an evaluation"),
    ],
)
def test_what_was_not_trained_has_its_reason(journal: Path, episode: Episode, reason: str) -> None:
    found = credit(journal, episode)
    assert found.advantage is None and found.reason is not None and reason in found.reason


def test_a_dropped_call_of_a_trained_episode_keeps_its_own_reason() -> None:
    found = Credit(2, (0.5,), None)
    assert found.drop_reason(an_episode("g", 0, 1.0).completions[0]) is None
    assert found.drop_reason(an_episode("g", 0, 1.0, drop_reason="greedy").completions[0]) == "greedy"


def test_each_call_has_the_advantage_of_its_own_sample(tmp_path: Path) -> None:
    group = a_group(7, 1.0, 0.0)
    first = group.episodes[0]
    second_call = replace(first.completions[0], completion_id="g000007-a00-c1")
    fault = Reward("process.format", -0.25, "made up", 0)
    stepwise = replace(first, completions=(*first.completions, second_call), rewards=(*first.rewards, fault))
    group = replace(group, episodes=(stepwise, group.episodes[1]))

    async def record() -> None:
        log = Journal.open(tmp_path / "journal.sqlite")
        await log.record_group(group.group_id, group.index, group.task)
        for episode in group.episodes:
            for call in episode.completions:
                await log.record_completion(episode.episode_id, call, episode.messages)
            await log.record_episode(episode)
        await log.record_consumed([group.group_id], step=1, reason="trained")
        await log.close()

    asyncio.run(record())
    found = credit(tmp_path / "journal.sqlite", stepwise)
    assert found.advantages == (0.75, 1.0) and found.advantage == 0.75
    assert list(found.advantages) == [sample.advantages[-1] for sample in samples_from_groups([group], baseline="leave_one_out")][:2]


def test_show_prints_the_advantage_of_each_call_and_where_a_reward_was_earned() -> None:
    episode = an_episode("g", 0, 1.0)
    second_call = replace(episode.completions[0], completion_id="g-a00-c1")
    rewards = (*episode.rewards, Reward("process.format", -0.25, "refused", 0))
    out = Console(file=io.StringIO(), width=200)
    print_episode(
        replace(episode, completions=(*episode.completions, second_call), rewards=rewards), Credit(4, (0.5, 0.75), None), None, out
    )
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "trained in step 4, advantage +0.500 at its first call to +0.750 at its last" in text
    assert "trained at advantage +0.500" in text and "trained at advantage +0.750" in text
    assert "process.format at call 0 -0.25: refused" in text and "outcome 1: made up" in text


def test_the_newest_steps_attempts_come_by_falling_advantage(journal: Path) -> None:
    with JournalReader.open(journal) as reader:
        found = CreditBook(reader, {}).newest_step()
    assert [trained.episode.episode_id for trained in found] == ["g000000-a00", "g000000-a03", "g000000-a01"]
