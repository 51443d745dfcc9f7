"""A pool whose run dies again and again: what it goes on with is exactly what its journal says is left, relative to a checkpoint."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trunkline.errors import ConfigError
from trunkline.pool.backlog import Backlog, KilledCalls
from trunkline.pool.config import PoolConfig, WindowConfig
from trunkline.pool.journal import Journal
from trunkline.pool.journal_reader import JournalReader
from trunkline.pool.pool import Pool
from trunkline.pool.resume import read_backlog
from trunkline.pool.takes import StepTake
from trunkline.protocols import EpisodeSpec
from trunkline.types import (
    Completion,
    Episode,
    Failure,
    Generation,
    Message,
    MessageNode,
    PolicyVersion,
    Reward,
    SamplingParams,
    Task,
    VersionSpan,
)

NODES = (MessageNode(Message("user", "?"), None), MessageNode(Message("assistant", "!"), 0))


def task_of(index: int) -> Task:
    return Task(f"t/{index}", "t", "only", (Message("user", "?"),), {})


@dataclass
class TwoCalls:
    """An EpisodeRunner: two recorded calls with pauses of random length, then an outcome that may be a failure on our side."""

    journal: Journal
    rng: random.Random
    version: PolicyVersion
    specs: list[EpisodeSpec] = field(default_factory=list)

    async def run(self, spec: EpisodeSpec) -> Episode:
        self.specs.append(spec)
        episode_id = f"{spec.group_id}-a{spec.attempt:02d}" + (f"-r{spec.retry}" if spec.retry else "")
        calls: list[Completion] = []
        for number in range(2):
            generation = Generation((1, 2), (-0.5, -0.1), "stop", (VersionSpan(0, 2, self.version),))
            identity = f"{self.version.incarnation}/{episode_id}/{number}", "s"
            calls.append(Completion(*identity, (0, number), generation, SamplingParams(2), 0, 1))
            await self.journal.record_completion(episode_id, calls[-1], NODES if number == 0 else ())
            for _ in range(self.rng.randrange(4)):
                await asyncio.sleep(0)
        outcome = random.Random(f"{spec.seed}/{spec.retry}").random()
        identity_of_episode = episode_id, spec.group_id, spec.task.task_id, spec.attempt
        if outcome < 0.15:
            episode = Episode(*identity_of_episode, "failed", tuple(calls), NODES, failure=Failure("engine", "Example", "on purpose"))
        else:
            episode = Episode(*identity_of_episode, "finished", tuple(calls), NODES, (Reward("outcome", float(outcome < 0.5), "dice"),))
        await self.journal.record_episode(episode)
        return episode


@dataclass
class Life:
    """One incarnation: what it started from and what it handed out."""

    backlog: Backlog
    killed_before: KilledCalls
    takes: dict[int, StepTake] = field(default_factory=dict)
    num_begun: int = 0


@dataclass
class Saga:
    """A run of several incarnations; the trainer checkpoints every `checkpoint_every` steps and is always restored from the newest."""

    path: Path
    config: PoolConfig
    checkpoint_every: int
    rng: random.Random
    lives: list[Life] = field(default_factory=list)

    @property
    def newest_checkpoint(self) -> int:
        with JournalReader.open(self.path) as record:
            return max((version.step for version, _ in record.checkpoints()), default=0)

    async def live(self, *, num_steps: int, is_killed: bool) -> Pool:
        """Trains up to step `num_steps`; a killed life ends somewhere in the step after it."""
        journal = Journal.open(self.path)
        try:
            with JournalReader.open(self.path) as record:
                step = self.newest_checkpoint
                backlog = read_backlog(record, step=step, config=self.config)
                killed = sum(
                    (killed for incarnation, killed in record.killed().items() if incarnation < journal.incarnation), KilledCalls()
                )
            life = Life(backlog, killed)
            self.lives.append(life)
            runner = TwoCalls(journal, self.rng, PolicyVersion(journal.incarnation, step))
            pool = Pool(runner, task_of, journal, config=self.config, seed=5, backlog=backlog)
            running = asyncio.create_task(pool.run())
            training = asyncio.create_task(self.train(pool, runner, journal, life, num_steps=num_steps))
            await training
            if is_killed:
                for _ in range(self.rng.randrange(12)):
                    await asyncio.sleep(0.0005)
                if self.rng.random() < 0.5:  # also while a step is handed out
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(pool.next_step(), 0.001 * self.rng.random())
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            life.num_begun = len(runner.specs)
            return pool
        finally:
            await journal.close()

    async def train(self, pool: Pool, runner: TwoCalls, journal: Journal, life: Life, *, num_steps: int) -> None:
        for step in range(life.backlog.step + 1, num_steps + 1):
            take = await pool.next_step()
            assert take is not None
            life.takes[step] = take
            runner.version = PolicyVersion(journal.incarnation, step)
            await pool.published(runner.version)
            if step % self.checkpoint_every == 0:
                await journal.record_checkpoint(runner.version, path=Path(f"step-{step}"))


configs = st.builds(
    lambda P, S, f, G: PoolConfig(
        group_size=G, retry_delay_s=0.0, window=WindowConfig(groups_per_step=P, max_off_policy_steps=S, window_fraction=f)
    ),
    st.integers(1, 3),
    st.integers(0, 2),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(2, 3),
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(
    config=configs,
    checkpoint_every=st.integers(1, 4),
    steps=st.lists(st.integers(0, 9), min_size=1, max_size=3).map(sorted),
    seed=st.integers(0, 2**32),
)
def test_a_run_that_dies_again_and_again_trains_and_samples_everything_once(
    config: PoolConfig, checkpoint_every: int, steps: list[int], seed: int
) -> None:
    async def main(path: Path) -> None:
        async with asyncio.timeout(60):
            saga = Saga(path, config, checkpoint_every, random.Random(seed))
            for num_steps in steps:
                await saga.live(num_steps=num_steps, is_killed=True)
            pool = await saga.live(num_steps=12, is_killed=False)
        check_history(saga, pool)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder) / "j"))


def check_history(saga: Saga, pool: Pool) -> None:
    window, last = saga.config.window, saga.lives[-1]
    takes = {step: take for life in saga.lives for step, take in life.takes.items()}
    assert sorted(takes) == list(range(1, 13))
    trained = [group for step in sorted(takes) for group in takes[step].groups]
    degenerate = [group for step in sorted(takes) for group in takes[step].degenerate]
    assert len({group.index for group in trained + degenerate}) == len(trained) + len(degenerate), "each group is consumed once"
    for life in saga.lives:
        for step, take in life.takes.items():
            assert take.groups == takes[step].groups, "a step is made of the same groups in every incarnation"
    assert max(max(take.ages) for take in takes.values()) <= window.max_age
    order = [group.index for group in trained]
    assert all(sum(younger > index for younger in order[:place]) <= window.max_bypass for place, index in enumerate(order))
    check_episodes(saga, pool)
    assert pool.stats().num_trained == len(trained)
    assert last.killed_before.num_tokens == 2 * last.killed_before.num_completions


def check_episodes(saga: Saga, pool: Pool) -> None:
    with JournalReader.open(saga.path) as record:
        ended = Counter((episode.group_id, episode.attempt) for episode in record.episodes() if episode.status == "finished")
        assert set(ended.values()) <= {1}, "no finished attempt is run again"
        attempts = record.attempts()
        assert sum(killed.num_completions for killed in record.killed().values()) <= 2 * sum(life.num_begun for life in saga.lives)
        assert all(attempt.num_tries <= saga.config.infra_retries + 1 for attempt in attempts)
        incarnations = len(saga.lives)
        assert record.num_incarnations == incarnations
        discarded = {group_id for group_id, _, reason in record.consumed() if reason == "degenerate"}
        assert pool.stats().num_degenerate == len(discarded)


# --- single behaviours ------------------------------------------------------------------------------------------------

CONFIG = PoolConfig(group_size=2, window=WindowConfig(groups_per_step=2, max_off_policy_steps=1, window_fraction=0.5))


def ended(group: int, attempt: int, reward: float | None, *, retry: int = 0) -> Episode:
    episode_id = f"g{group:06d}-a{attempt:02d}" + (f"-r{retry}" if retry else "")
    identity = episode_id, f"g{group:06d}", f"t/{group}", attempt
    if reward is None:
        return Episode(*identity, "failed", (), NODES, failure=Failure("infra", "Example", "on purpose"))
    return Episode(*identity, "finished", (), NODES, (Reward("outcome", reward, "dice"),))


async def submit(journal: Journal, num_groups: int, *episodes: Episode) -> None:
    for index in range(num_groups):
        await journal.record_group(f"g{index:06d}", index, task_of(index))
    for episode in episodes:
        await journal.record_episode(episode)


def backlog_of(path: Path, *, step: int) -> Backlog:
    with JournalReader.open(path) as record:
        return read_backlog(record, step=step, config=CONFIG)


def test_steps_after_the_checkpoint_come_again_in_order_and_what_waits_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        journal = Journal.open(tmp_path / "j")
        judged = [ended(group, attempt, float(attempt)) for group in range(7) for attempt in range(2)]
        await submit(journal, 8, *judged, ended(7, 0, 1.0))
        await journal.record_consumed(["g000001", "g000000"], step=1, reason="trained")
        await journal.record_consumed(["g000003", "g000002"], step=2, reason="trained")
        await journal.record_consumed(["g000005", "g000004"], step=3, reason="trained")
        await journal.close()

    asyncio.run(main())
    backlog = backlog_of(tmp_path / "j", step=1)
    assert [(one.step, [group.index for group in one.groups]) for one in backlog.redeliveries] == [(2, [3, 2]), (3, [5, 4])]
    assert [group.index for group in backlog.finished] == [6]
    assert [(one.group.index, [episode.attempt for episode in one.group.episodes]) for one in backlog.unfinished] == [(7, [0])]
    assert (backlog.num_submitted, backlog.counts["trained"]) == (8, 2)


def test_groups_without_gradient_stay_consumed_and_are_counted_with_their_step_again(tmp_path: Path) -> None:
    async def main() -> None:
        journal = Journal.open(tmp_path / "j")
        await submit(journal, 6, *(ended(group, attempt, float(attempt * (group % 3 > 0))) for group in range(6) for attempt in range(2)))
        await journal.record_consumed(["g000000"], step=0, reason="degenerate")
        await journal.record_consumed(["g000001", "g000002"], step=1, reason="trained")
        await journal.record_consumed(["g000003"], step=1, reason="degenerate")
        await journal.close()

    asyncio.run(main())
    again = backlog_of(tmp_path / "j", step=0)
    assert [group.index for group in again.redeliveries[0].degenerate] == [0]
    assert [group.index for group in again.degenerate] == [3]
    assert [group.index for group in again.finished] == [4, 5]
    assert again.counts["degenerate"] == 2


def test_a_try_that_failed_on_our_side_is_followed_by_the_next_and_a_last_one_is_masked(tmp_path: Path) -> None:
    async def main() -> None:
        journal = Journal.open(tmp_path / "j")
        tries = [ended(0, 0, None), ended(0, 0, None, retry=1), ended(0, 1, 1.0)]
        masked = [ended(1, 0, None), ended(1, 0, None, retry=1), ended(1, 0, None, retry=2), ended(1, 1, 1.0)]
        await submit(journal, 2, *tries, *masked)
        await journal.close()

    asyncio.run(main())
    backlog = backlog_of(tmp_path / "j", step=0)
    (unfinished,) = backlog.unfinished
    assert (unfinished.group.index, unfinished.num_tries) == (0, {0: 2})
    assert [group.index for group in backlog.finished] == [1]
    assert (backlog.counts["retried"], backlog.counts["failed"]) == (4, 1)


def test_completions_of_attempts_that_never_ended_are_killed_and_those_of_evaluations_are_not(tmp_path: Path) -> None:
    def call(name: str) -> Completion:
        generation = Generation((1, 2, 3), (-0.5, -0.1, -0.2), "stop", (VersionSpan(0, 3, PolicyVersion(1, 0)),))
        return Completion(name, "s", (0,), generation, SamplingParams(3), 0, 1)

    async def main() -> None:
        for incarnation in (1, 2):
            journal = Journal.open(tmp_path / "j")
            if incarnation == 1:
                await submit(journal, 1)
                await journal.record_completion("heldout.start-00003-a00", call("e"), NODES)
            await journal.record_completion("g000000-a00", call("killed"), NODES)
            done = call("done")
            await journal.record_completion("g000000-a01", done, NODES)
            await journal.record_episode(replace(ended(0, 1, 1.0), completions=(done,)))
            await journal.close()

    asyncio.run(main())
    with JournalReader.open(tmp_path / "j") as record:
        assert record.killed() == {1: KilledCalls(1, 3), 2: KilledCalls(1, 3)}


def test_a_journal_that_lost_what_a_checkpoint_was_made_from_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        journal = Journal.open(tmp_path / "j")
        await submit(journal, 2, *(ended(group, attempt, float(attempt)) for group in range(2) for attempt in range(2)))
        await journal.record_consumed(["g000000", "g000001"], step=1, reason="trained")
        await journal.close()

    asyncio.run(main())
    with pytest.raises(ConfigError, match=r"knows steps up to 1, but the checkpoint is of step 3: records were lost"):
        backlog_of(tmp_path / "j", step=3)


def test_a_recipe_with_other_sizes_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        journal = Journal.open(tmp_path / "j")
        await submit(journal, 1, ended(0, 0, 1.0), ended(0, 1, 0.0))
        await journal.record_consumed(["g000000"], step=1, reason="trained")
        await journal.close()

    asyncio.run(main())
    with pytest.raises(ConfigError, match="has 1 groups for step 1, but a step is made of 2"):
        backlog_of(tmp_path / "j", step=0)


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of some hundred records in three incarnations, with its -wal, as a killed process leaves it."""
    path = tmp_path_factory.mktemp("crashed") / "j"

    async def main() -> None:
        saga = Saga(path, CONFIG, 2, random.Random(1))
        await saga.live(num_steps=4, is_killed=True)
        reader = sqlite3.connect(path)  # while somebody reads, closing does not fold the log into the file
        reader.execute("SELECT count(*) FROM calls").fetchone()
        reader.execute("PRAGMA wal_checkpoint(FULL)")
        await saga.live(num_steps=6, is_killed=True)
        await saga.live(num_steps=9, is_killed=True)
        for suffix in ("", "-wal"):
            path.with_name("copy" + suffix).write_bytes(path.with_name("j" + suffix).read_bytes())
        reader.close()

    asyncio.run(main())
    return path.with_name("copy")


@pytest.mark.parametrize("which", ["", "-wal"])
def test_a_journal_cut_anywhere_is_a_whole_earlier_state_or_refused(crashed: Path, tmp_path: Path, which: str) -> None:
    whole = backlog_of_all(crashed)
    size = crashed.with_name(crashed.name + which).stat().st_size
    assert size > 50_000
    found = Counter[str]()
    for number, cut in enumerate(sorted(random.Random(2).sample(range(size), 25))):
        copy = tmp_path / f"{number}"
        for suffix in ("", "-wal"):
            content = crashed.with_name(crashed.name + suffix).read_bytes()
            copy.with_name(copy.name + suffix).write_bytes(content[:cut] if suffix == which else content)
        try:
            state = backlog_of_all(copy)
        except ConfigError as error:
            assert str(copy) in str(error)
            found["refused"] += 1
        else:
            assert state == whole[: len(state)], "what is left is how it was at an earlier time"
            found["earlier"] += 1
    assert found["earlier" if which == "-wal" else "refused"] > 5, found


def backlog_of_all(path: Path) -> list[tuple[str, int, str]]:
    """All consumptions, after a check of the file and of the backlog they give."""
    with JournalReader.open(path) as record:
        record.check()
        consumed = record.consumed()
        read_backlog(record, step=0, config=CONFIG)
        return consumed
