"""Groups in flight: admits them, runs their attempts, hands finished ones to the trainer by windowed FIFO. Owns no episode's inside.

    run() ── slot free ──► submit group ──► G attempts at once (infra failures again) ──► finished group
               ▲                                                                              │
               │                          no gradient: consumed, slot freed at once ◄─────────┤ in the window, oldest first
               └── published() ◄── training ◄── next_step(): P groups with gradient ◄─────────┘

run() admits until stop(), the end of submissions, or an error; next_step() waits for the window; published() answers one next_step().
A pool with a backlog hands out its redeliveries first. They hold slots, so nothing is sampled before what is held fits into B again:
the bounds of the window then hold across a resume, since at most B-1 slots are held by others when a missing attempt is begun.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from trunkline.errors import InfraError
from trunkline.pool.backlog import Backlog, Redelivery, UnfinishedGroup
from trunkline.pool.config import PoolConfig
from trunkline.pool.journal import Journal
from trunkline.pool.retries import is_run_again
from trunkline.pool.takes import PoolStats, StepTake
from trunkline.pool.window import Window
from trunkline.protocols import EpisodeRunner, EpisodeSpec
from trunkline.types import Episode, Group, PolicyVersion, Task

_FEWEST_BARREN_GROUPS = 16


class Pool:
    """Keeps B groups in flight and P of them a step coming.

    Args:
        runner: runs one attempt and records it; a failure is data, an exception ends `run`.
        next_task: the task of the group with this index; called once for each that is not in the backlog, in order.
        journal: records submissions and consumptions.
        config: sizes and retries.
        seed: of the run; with group index and attempt it gives the seed of an episode (the same for its retries).
        max_groups: submissions end here; None goes on until stop().
        backlog: what an earlier incarnation of the run left; the default begins a run.
    """

    def __init__(
        self,
        runner: EpisodeRunner,
        next_task: Callable[[int], Task],
        journal: Journal,
        *,
        config: PoolConfig,
        seed: int,
        max_groups: int | None = None,
        backlog: Backlog = Backlog(),  # noqa: B008 - frozen
    ) -> None:
        self._runner = runner
        self._next_task = next_task
        self._journal = journal
        self._config = config
        self._seed = seed
        self._max_groups = max_groups
        self._window = _window_of(config, backlog)
        self._redeliveries = deque(backlog.redeliveries)
        self._unfinished = backlog.unfinished
        self._groups = {group.index: group for group in backlog.finished}  # finished, not yet consumed
        self._taking: list[Group] = []  # consumed for the step that next_step() collects
        self._degenerate = list(backlog.degenerate)  # consumed since the last step
        self._unpublished: deque[tuple[Group, ...]] = deque()
        self._version = PolicyVersion(journal.incarnation, backlog.step)
        self._slot_freed = asyncio.Event()
        self._group_finished = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._failure: BaseException | None = None
        self._counts = Counter(backlog.counts)
        self._ages: Counter[int] = Counter()
        self._num_barren = 0
        self._num_told_stalls = 0

    # --- the conductor's verbs ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Admits and runs groups until stop() or, with max_groups, until all of them finished.

        Raises what the runner, next_task or the journal raised, and InfraError if no attempt at all succeeds any more.
        """
        assert self._work is None, "a pool runs once"
        if self._is_stopped:
            return
        self._work = asyncio.create_task(self._admit())
        try:
            await asyncio.wait({self._work})
        finally:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
            self._failure = None if self._work.cancelled() else _first_cause(self._work.exception())
            self._is_stopped |= self._work.cancelled()
            self._group_finished.set()
        if self._failure is not None:
            raise self._failure

    async def next_step(self) -> StepTake | None:
        """Waits until P groups with gradient were taken from the window, and until that is durable; redeliveries come first.

        None when nothing more can come: the pool was stopped, or submissions ended and fewer than P groups were left (these are
        not recorded as consumed). Raises what ended run(). A cancelled wait loses no group.
        """
        started = time.monotonic()
        if self._redeliveries:
            return await self._hand_out_again(self._redeliveries[0], started)
        while len(self._taking) < self._config.window.groups_per_step:
            index = self._window.take()
            if index is not None:
                self._taking.append(self._groups.pop(index))
                await self._discard_degenerate()
                continue
            if self._failure is not None:
                raise self._failure
            if self._is_stopped or self._is_exhausted:
                return None
            self._group_finished.clear()
            await self._group_finished.wait()
        return await self._hand_out(started)

    async def published(self, version: PolicyVersion) -> None:
        """Weights are out: frees the slots of the oldest step handed out and not yet published, if there is one."""
        self._version = version
        for group in self._unpublished.popleft() if self._unpublished else ():
            self._window.publish(group.index)
        self._slot_freed.set()

    async def stop(self) -> None:
        """Cancels all attempts, waits for their end, and lets run() return. Calling it again does nothing more."""
        self._is_stopped = True
        self._group_finished.set()
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait({self._work})

    def stats(self) -> PoolStats:
        """What happened so far, in earlier incarnations too; ages and bypasses as far as this one knows them."""
        counts = self._counts
        return PoolStats(
            num_submitted=self._window.num_submitted,
            num_trained=counts["trained"],
            num_degenerate=counts["degenerate"],
            num_failed=counts["failed"],
            num_retried=counts["retried"],
            num_deadline=counts["deadline"],
            num_running_episodes=counts["running"],
            max_bypass=self._window.max_bypass,
            ages=dict(self._ages),
        )

    # --- groups ---------------------------------------------------------------------------------------------------

    @property
    def _all_submitted(self) -> bool:
        return self._max_groups is not None and self._window.num_submitted >= self._max_groups

    @property
    def _is_exhausted(self) -> bool:
        return self._all_submitted and self._window.num_unconsumed == 0

    async def _admit(self) -> None:
        await self._discard_degenerate()
        async with asyncio.TaskGroup() as groups:
            await self._until_free(at_least=0)
            for unfinished in self._unfinished:
                groups.create_task(self._finish_group(unfinished))
            while not self._all_submitted:
                await self._until_free(at_least=1)
                groups.create_task(self._run_group(self._window.submit()))

    async def _until_free(self, *, at_least: int) -> None:
        while self._window.num_free < at_least:
            self._slot_freed.clear()
            await self._slot_freed.wait()

    async def _run_group(self, index: int) -> None:
        group = Group(f"g{index:06d}", index, self._next_task(index), ())
        await self._journal.record_group(group.group_id, index, group.task)
        await self._finish_group(UnfinishedGroup(group, self._config.group_size))

    async def _finish_group(self, unfinished: UnfinishedGroup) -> None:
        """Runs the attempts that are missing, all at once."""
        index, group = unfinished.group.index, unfinished.group
        kept = {episode.attempt: episode for episode in group.episodes}
        async with asyncio.TaskGroup() as attempts:
            running = {
                attempt: attempts.create_task(
                    self._run_attempt(
                        EpisodeSpec(group.task, group.group_id, attempt, episode_seed(self._seed, index, attempt)),
                        first_retry=unfinished.num_tries.get(attempt, 0),
                    )
                )
                for attempt in range(self._config.group_size)
                if attempt not in kept
            }
        ended = kept | {attempt: task.result() for attempt, task in running.items()}
        group = dataclasses.replace(group, episodes=tuple(ended[attempt] for attempt in sorted(ended)))
        self._count(group)
        self._groups[index] = group
        self._window.finish(index, has_gradient=group.has_gradient)
        await self._discard_degenerate()
        self._group_finished.set()

    async def _run_attempt(self, spec: EpisodeSpec, *, first_retry: int) -> Episode:
        """Runs one attempt, again while it fails on our side; the last episode counts."""
        for retry in range(first_retry, self._config.infra_retries):
            episode = await self._run_once(spec, retry)
            if not _failed_on_our_side(episode):
                return episode
            self._counts["retried"] += 1
            await asyncio.sleep(self._config.retry_delay_s * 2**retry)
        return await self._run_once(spec, self._config.infra_retries)

    async def _run_once(self, spec: EpisodeSpec, retry: int) -> Episode:
        self._counts["running"] += 1
        try:
            return await self._runner.run(dataclasses.replace(spec, retry=retry))
        finally:
            self._counts["running"] -= 1

    def _count(self, group: Group) -> None:
        """Raises InfraError when a whole buffer of groups in a row has no valid attempt: such a run burns tasks and learns nothing."""
        for episode in group.episodes:
            self._counts[episode.status] += 1
        self._num_barren = 0 if group.valid_rewards else self._num_barren + 1
        if self._num_barren >= max(_FEWEST_BARREN_GROUPS, self._config.window.capacity):
            failure = group.episodes[-1].failure
            cause = f"{failure.boundary} {failure.kind}: {failure.message}" if failure else "no cause given"
            raise InfraError(f"the last {self._num_barren} groups failed in every attempt; the last failure was {cause}; remove its cause")

    async def _discard_degenerate(self) -> None:
        """Consumes what has no gradient inside the window; its slots go to new groups at once."""
        groups = [self._groups.pop(index) for index in self._window.discard()]
        if not groups:
            return
        self._degenerate += groups
        self._counts["degenerate"] += len(groups)
        self._slot_freed.set()
        self._group_finished.set()
        await self._record_consumed(groups, step=self._policy_step, reason="degenerate")

    # --- steps ----------------------------------------------------------------------------------------------------

    @property
    def _policy_step(self) -> int:
        """Optimiser steps behind the weights that the next step starts from, steps handed out and not yet published included."""
        return self._version.step + len(self._unpublished)

    async def _hand_out_again(self, redelivery: Redelivery, started: float) -> StepTake:
        """Records that this incarnation trains on it too: the journal then shows, step by step, which history the weights have."""
        assert redelivery.step == self._policy_step + 1, f"step {redelivery.step} is delivered again, at policy step {self._policy_step}"
        await self._record_consumed(redelivery.groups, step=redelivery.step, reason="trained")
        self._redeliveries.popleft()
        return self._take(redelivery.groups, redelivery.degenerate, started)

    async def _hand_out(self, started: float) -> StepTake:
        await self._record_consumed(self._taking, step=self._policy_step + 1, reason="trained")
        groups, self._taking = tuple(self._taking), []
        return self._take(groups, (), started)

    def _take(self, groups: tuple[Group, ...], degenerate: tuple[Group, ...], started: float) -> StepTake:
        degenerate, self._degenerate = (*degenerate, *self._degenerate), []
        ages = tuple(self._age(group) for group in groups)
        self._unpublished.append(groups)
        self._counts["trained"] += len(groups)
        self._ages.update(ages)
        num_stalls = self._window.num_stalls - self._num_told_stalls
        self._num_told_stalls += num_stalls
        return StepTake(groups, degenerate, time.monotonic() - started, ages, num_stalls)

    async def _record_consumed(self, groups: Sequence[Group], *, step: int, reason: Literal["trained", "degenerate"]) -> None:
        await self._journal.record_consumed([group.group_id for group in groups], step=step, reason=reason)

    def _age(self, group: Group) -> int:
        """Attempts that failed are not trained and have no age."""
        training = dataclasses.replace(self._version, step=self._policy_step)
        return max((version.age_at(training) for version in _versions(group)), default=0)


def episode_seed(run_seed: int, index: int, attempt: int) -> int:
    """64 bits that depend on these three numbers alone: the same on every machine and in every process."""
    digest = hashlib.blake2b(f"{run_seed}/{index}/{attempt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _window_of(config: PoolConfig, backlog: Backlog) -> Window:
    waiting: dict[int, bool | None] = {unfinished.group.index: None for unfinished in backlog.unfinished}
    waiting |= {group.index: group.has_gradient for group in backlog.finished}
    return Window.restored(
        capacity=config.window.capacity,
        window=config.window.window,
        num_submitted=backlog.num_submitted,
        unconsumed=dict(sorted(waiting.items())),
        unpublished=[group.index for redelivery in backlog.redeliveries for group in redelivery.groups],
    )


def _failed_on_our_side(episode: Episode) -> bool:
    return is_run_again(episode.status, episode.failure.boundary if episode.failure else None)


def _versions(group: Group) -> Iterator[PolicyVersion]:
    for episode in group.episodes:
        if episode.status != "failed":
            for completion in episode.completions:
                for span in completion.generation.version_spans:
                    yield span.version


def _first_cause(error: BaseException | None) -> BaseException | None:
    """Task groups wrap what a task raised; the first such error is the cause of all others."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
