"""The pool with real concurrency: hundreds of groups of random length, failures, retries, stops, and no task left behind."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from trunkline.errors import InfraError, JournalError
from trunkline.pool.config import PoolConfig, WindowConfig
from trunkline.pool.journal import Journal
from trunkline.pool.journal_reader import JournalReader
from trunkline.pool.pool import Pool, episode_seed
from trunkline.pool.takes import StepTake
from trunkline.protocols import EpisodeSpec
from trunkline.types import (
    Boundary,
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

Outcome = float | Boundary
"""A reward, or the boundary at which the attempt fails."""


def task_of(index: int) -> Task:
    return Task(f"t/{index}", "t", "only", (Message("user", "?"),), {})


@dataclass
class OneCall:
    """An EpisodeRunner: an attempt is one sampled token, some time, and an outcome; recorded in a real journal."""

    journal: Journal
    outcome: Callable[[EpisodeSpec], Outcome]
    duration_s: Callable[[EpisodeSpec], float] = lambda spec: 0.0
    version: PolicyVersion = field(default=PolicyVersion(1, 0))
    specs: list[EpisodeSpec] = field(default_factory=list)
    num_running: int = 0
    max_running: int = 0

    async def run(self, spec: EpisodeSpec) -> Episode:
        self.specs.append(spec)
        self.num_running += 1
        self.max_running = max(self.max_running, self.num_running)
        version = self.version
        try:
            await asyncio.sleep(self.duration_s(spec))
        finally:
            self.num_running -= 1
        outcome = self.outcome(spec)
        suffix = f"-r{spec.retry}" if spec.retry else ""
        episode_id = f"{spec.group_id}-a{spec.attempt:02d}{suffix}"
        generation = Generation((1,), (-0.5,), "stop", (VersionSpan(0, 1, version),))
        completion = Completion(episode_id, "s", (0,), generation, SamplingParams(1), 0, 1)
        nodes = (MessageNode(Message("user", "?"), None), MessageNode(Message("assistant", "!"), 0))
        identity = episode_id, spec.group_id, spec.task.task_id, spec.attempt
        if isinstance(outcome, str):
            failure = Failure(outcome, "Example", "on purpose")
            episode = Episode(*identity, "failed", (completion,), nodes, failure=failure)
        else:
            episode = Episode(*identity, "finished", (completion,), nodes, (Reward("outcome", outcome, "by the dice"),))
        await self.journal.record_episode(episode)
        return episode


def config_of(P: int = 2, S: int = 1, f: float = 0.5, G: int = 2, **knobs: Any) -> PoolConfig:
    window = WindowConfig(groups_per_step=P, max_off_policy_steps=S, window_fraction=f)
    return PoolConfig(group_size=G, retry_delay_s=0.0, window=window, **knobs)


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Journal]:
    """A journal; when it is closed again, no task may be left."""
    journal = Journal.open(path / "j")
    try:
        yield journal
    finally:
        await journal.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}


def differ(spec: EpisodeSpec) -> Outcome:
    """Rewards of a group differ: every group has gradient."""
    return float(spec.attempt % 2)


def in_bounded_time(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(bounded())


async def train(pool: Pool, runner: OneCall, *, num_steps: int, step_s: float = 0.0) -> list[StepTake]:
    takes = []
    for step in range(1, num_steps + 1):
        take = await pool.next_step()
        if take is None:
            break
        takes.append(take)
        await asyncio.sleep(step_s)
        runner.version = PolicyVersion(1, step)
        await pool.published(runner.version)
    return takes


@pytest.mark.parametrize(("P", "S", "f"), [(4, 1, 0.3), (3, 2, 1.0), (5, 0, 0.3), (2, 3, 0.0)])
def test_bounds_hold_over_hundreds_of_groups_of_random_length(tmp_path: Path, P: int, S: int, f: float) -> None:
    config = config_of(P, S, f, G=4)

    def outcome(spec: EpisodeSpec) -> Outcome:
        draw = random.Random(spec.seed + spec.retry).random()
        return "infra" if draw < 0.05 else "verifier" if draw < 0.08 else float(draw < 0.2)

    def duration_s(spec: EpisodeSpec) -> float:
        rng = random.Random(f"{spec.seed}/time")
        return rng.random() * (0.03 if rng.random() < 0.05 else 0.002)

    async def main() -> None:
        async with opened(tmp_path) as journal:
            runner = OneCall(journal, outcome, duration_s)
            pool = Pool(runner, task_of, journal, config=config, seed=3)
            running = asyncio.create_task(pool.run())
            takes = await train(pool, runner, num_steps=300 // P, step_s=0.001)
            await pool.stop()
            await running
            check(takes, pool, runner)

    def check(takes: list[StepTake], pool: Pool, runner: OneCall) -> None:
        stats = pool.stats()
        groups = [group for take in takes for group in (*take.groups, *take.degenerate)]
        assert all(len(take.groups) == P and all(group.has_gradient for group in take.groups) for take in takes)
        assert not any(group.has_gradient for take in takes for group in take.degenerate)
        assert len({group.index for group in groups}) == len(groups)
        assert max(max(take.ages) for take in takes) <= config.window.max_age
        assert stats.max_bypass <= config.window.max_bypass
        assert runner.max_running <= config.window.capacity * config.group_size
        assert sum(stats.ages.values()) == stats.num_trained == len(takes) * P
        assert stats.num_retried > 0 and stats.num_failed > 0 and stats.num_degenerate > 0
        assert stats.num_running_episodes == runner.num_running == 0
        with JournalReader.open(tmp_path / "j") as record:
            trained = [group_id for group_id, _, reason in record.consumed() if reason == "trained"]
        assert trained == [group.group_id for take in takes for group in take.groups]

    in_bounded_time(main())


def run_all(
    path: Path, outcome: Callable[[EpisodeSpec], Outcome], *, config: PoolConfig, max_groups: int
) -> tuple[list[StepTake], Pool, OneCall]:
    """Trains on `max_groups` groups until nothing more can come."""
    kept: list[Any] = []

    async def main() -> None:
        async with opened(path) as journal:
            runner = OneCall(journal, outcome)
            pool = Pool(runner, task_of, journal, config=config, seed=3, max_groups=max_groups)
            running = asyncio.create_task(pool.run())
            takes = await train(pool, runner, num_steps=10**6)
            await running
            kept.extend((takes, pool, runner))

    in_bounded_time(main())
    return kept[0], kept[1], kept[2]


def test_submissions_end_and_then_no_step_comes(tmp_path: Path) -> None:
    takes, pool, runner = run_all(tmp_path, differ, config=config_of(P=2), max_groups=7)
    assert sorted(group.index for take in takes for group in take.groups) == list(range(6))
    assert pool.stats().num_submitted == 7
    with JournalReader.open(tmp_path / "j") as record:
        groups = list(record.groups())
        assert [group.task for group in groups] == [task_of(index) for index in range(7)]
        by_index = {group.index: group for take in takes for group in take.groups}
        assert all(groups[index] == group for index, group in by_index.items())
        assert [(group_id, step) for group_id, step, _ in record.consumed()] == [
            (group.group_id, step) for step, take in enumerate(takes, start=1) for group in take.groups
        ]
    assert [spec.group_id for spec in runner.specs[:3]] == ["g000000", "g000000", "g000001"]


def test_a_failure_on_our_side_is_retried_with_the_same_seed_and_recorded_each_time(tmp_path: Path) -> None:
    def outcome(spec: EpisodeSpec) -> Outcome:
        return "engine" if spec.attempt == 1 and spec.retry < 2 else differ(spec)

    takes, pool, runner = run_all(tmp_path, outcome, config=config_of(P=1, S=0), max_groups=1)
    assert [episode.episode_id for episode in takes[0].groups[0].episodes] == ["g000000-a00", "g000000-a01-r2"]
    assert {(spec.seed, spec.attempt) for spec in runner.specs} == {(episode_seed(3, 0, attempt), attempt) for attempt in (0, 1)}
    assert (pool.stats().num_retried, pool.stats().num_failed) == (2, 0)
    with JournalReader.open(tmp_path / "j") as record:
        assert sorted(episode.episode_id for episode in record.episodes()) == [
            "g000000-a00",
            "g000000-a01",
            "g000000-a01-r1",
            "g000000-a01-r2",
        ]


@pytest.mark.parametrize(("boundary", "num_tries"), [("infra", 3), ("sandbox", 3), ("gateway", 3), ("agent", 1), ("verifier", 1)])
def test_a_failed_attempt_is_masked_after_its_retries(tmp_path: Path, boundary: Boundary, num_tries: int) -> None:
    def outcome(spec: EpisodeSpec) -> Outcome:
        return boundary if spec.attempt == 0 else differ(spec)

    takes, pool, runner = run_all(tmp_path, outcome, config=config_of(P=1, G=3), max_groups=1)
    group = takes[0].groups[0]
    assert group.valid_rewards == (1.0, 0.0)
    assert group.episodes[0].status == "failed"
    assert sum(spec.attempt == 0 for spec in runner.specs) == num_tries
    assert pool.stats().num_failed == 1


def test_groups_without_gradient_are_consumed_and_do_not_fill_a_step(tmp_path: Path) -> None:
    def outcome(spec: EpisodeSpec) -> Outcome:
        return differ(spec) if int(spec.group_id[1:]) % 10 == 9 else 1.0

    takes, pool, _ = run_all(tmp_path, outcome, config=config_of(P=2, S=0), max_groups=40)
    assert [[group.index for group in take.groups] for take in takes] == [[9, 19], [29, 39]]
    assert sorted(group.index for take in takes for group in take.degenerate) == [i for i in range(40) if i % 10 != 9]
    assert pool.stats().num_degenerate == 36


def test_age_counts_steps_from_the_oldest_token_and_leaves_masked_attempts_out(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as journal:
            runner = OneCall(journal, differ)
            pool = Pool(runner, task_of, journal, config=config_of(P=1, S=1, f=0.0), seed=0)
            running = asyncio.create_task(pool.run())
            await pool.published(PolicyVersion(1, 10))
            runner.version = PolicyVersion(1, 8)
            first = await pool.next_step()
            await pool.published(PolicyVersion(1, 11))
            second = await pool.next_step()
            assert first is not None and second is not None
            assert (first.ages, second.ages) == ((2,), (3,))
            assert pool.stats().ages == {2: 1, 3: 1}
            await pool.stop()
            await running

    in_bounded_time(main())


def test_a_cancelled_wait_loses_no_group(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as journal:
            runner = OneCall(journal, differ, lambda spec: 0.02 * int(spec.group_id[1:]))
            pool = Pool(runner, task_of, journal, config=config_of(P=3, S=0, f=0.0), seed=0)
            running = asyncio.create_task(pool.run())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pool.next_step(), 0.03)
            take = await pool.next_step()
            assert take is not None
            assert [group.index for group in take.groups] == [0, 1, 2]
            await pool.stop()
            await running

    in_bounded_time(main())


def test_stop_cancels_what_runs_and_ends_a_waiting_step(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as journal:
            runner = OneCall(journal, differ, lambda spec: 60.0)
            pool = Pool(runner, task_of, journal, config=config_of(), seed=0)
            running, waiting = asyncio.create_task(pool.run()), asyncio.create_task(pool.next_step())
            while runner.num_running < 8:
                await asyncio.sleep(0.001)
            await pool.stop()
            await pool.stop()
            await running
            assert (await waiting, runner.num_running) == (None, 0)

    in_bounded_time(main())


def test_a_pool_that_is_stopped_before_it_runs_does_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as journal:
            runner = OneCall(journal, differ)
            pool = Pool(runner, task_of, journal, config=config_of(), seed=0)
            await pool.stop()
            await pool.run()
            assert (runner.specs, await pool.next_step()) == ([], None)

    in_bounded_time(main())


def test_cancelling_run_cancels_all_attempts(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as journal:
            runner = OneCall(journal, differ, lambda spec: 60.0)
            pool = Pool(runner, task_of, journal, config=config_of(), seed=0)
            running = asyncio.create_task(pool.run())
            while runner.num_running < 8:
                await asyncio.sleep(0.001)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert runner.num_running == 0

    in_bounded_time(main())


@dataclass
class Breaks(OneCall):
    """Raises out of the third group, as a runner does when the journal cannot be written."""

    async def run(self, spec: EpisodeSpec) -> Episode:
        if spec.group_id == "g000002":
            raise JournalError("the disk is full") from OSError("no space")
        await asyncio.sleep(60.0)
        raise AssertionError("cancelled before")


def test_an_exception_of_the_runner_ends_run_and_the_waiting_step_with_its_cause(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as journal:
            pool = Pool(Breaks(journal, differ), task_of, journal, config=config_of(), seed=0)
            waiting = asyncio.create_task(pool.next_step())
            with pytest.raises(JournalError, match="disk is full") as caught:
                await pool.run()
            assert isinstance(caught.value.__cause__, OSError)
            with pytest.raises(JournalError, match="disk is full"):
                await waiting

    in_bounded_time(main())


def test_a_failing_taskset_ends_run_with_its_error(tmp_path: Path) -> None:
    def no_task(index: int) -> Task:
        raise LookupError(f"no task {index}")

    async def main() -> None:
        async with opened(tmp_path) as journal:
            with pytest.raises(LookupError, match="no task 0"):
                await Pool(OneCall(journal, differ), no_task, journal, config=config_of(), seed=0).run()

    in_bounded_time(main())


def test_a_run_in_which_every_attempt_fails_ends_with_the_failure_named(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as journal:
            pool = Pool(OneCall(journal, lambda spec: "agent"), task_of, journal, config=config_of(), seed=0)
            with pytest.raises(InfraError, match="last 16 groups failed in every attempt; the last failure was agent Example: on purpose"):
                await pool.run()

    in_bounded_time(main())


def test_episode_seeds_are_64_bits_stable_and_distinct() -> None:
    seeds = {episode_seed(run, index, attempt) for run in range(5) for index in range(20) for attempt in range(16)}
    assert len(seeds) == 5 * 20 * 16
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert episode_seed(1, 2, 3) == 2276728233556386152  # pinned: a run must be repeatable by other versions of this code


def test_a_group_is_handed_out_with_its_episodes_by_attempt(tmp_path: Path) -> None:
    takes, _, _ = run_all(tmp_path, differ, config=config_of(P=1, G=5), max_groups=1)
    group: Group = takes[0].groups[0]
    assert [episode.attempt for episode in group.episodes] == list(range(5))
    assert (group.group_id, group.index, group.task) == ("g000000", 0, task_of(0))
