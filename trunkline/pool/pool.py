"""Groups in flight: admits them, runs their attempts, hands finished ones to the trainer by windowed FIFO. Owns no episode's inside.

    run() ── slot free ──► submit group ──► G attempts at once (infra failures again) ──► finished group
               ▲                                                                              │
               │                          no gradient: consumed, slot freed at once ◄─────────┤ in the window, oldest first
               └── published() ◄── training ◄── next_step(): P groups with gradient ◄─────────┘

run() admits until stop(), the end of submissions, or an error; next_step() waits for the window; published() answers one next_step().
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Literal

from trunkline.errors import InfraError
from trunkline.pool.config import PoolConfig
from trunkline.pool.journal import Journal
from trunkline.pool.takes import PoolStats, StepTake
from trunkline.pool.window import Window
from trunkline.protocols import EpisodeRunner, EpisodeSpec
from trunkline.types import Boundary, Episode, Group, PolicyVersion, Task

_RETRIED_BOUNDARIES: frozenset[Boundary] = frozenset({"infra", "engine", "sandbox", "gateway"})
_FEWEST_BARREN_GROUPS = 16


class Pool:
    """Keeps B groups in flight and P of them a step coming.

    Args:
        runner: runs one attempt and records it; a failure is data, an exception ends `run`.
        next_task: the task of the group with this index; called once for each, in order.
        journal: records submissions and consumptions.
        config: sizes and retries.
        seed: of the run; with group index and attempt it gives the seed of an episode (the same for its retries).
        max_groups: submissions end here; None goes on until stop().
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
    ) -> None:
        self._runner = runner
        self._next_task = next_task
        self._journal = journal
        self._config = config
        self._seed = seed
        self._max_groups = max_groups
        self._window = Window(capacity=config.window.capacity, window=config.window.window)
        self._groups: dict[int, Group] = {}  # finished, not yet consumed
        self._taking: list[Group] = []  # consumed for the step that next_step() collects
        self._degenerate: list[Group] = []  # consumed since the last step
        self._unpublished: deque[tuple[Group, ...]] = deque()
        self._version: PolicyVersion | None = None
        self._slot_freed = asyncio.Event()
        self._group_finished = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._failure: BaseException | None = None
        self._counts: Counter[str] = Counter()
        self._ages: Counter[int] = Counter()
        self._num_barren = 0

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
        """Waits until P groups with gradient were taken from the window, and until that is durable.

        None when nothing more can come: the pool was stopped, or submissions ended and fewer than P groups were left (these are
        not recorded as consumed). Raises what ended run(). A cancelled wait loses no group.
        """
        started = time.monotonic()
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
        """What happened so far."""
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
        async with asyncio.TaskGroup() as groups:
            while not self._all_submitted:
                if self._window.num_free:
                    groups.create_task(self._run_group(self._window.submit()))
                else:
                    self._slot_freed.clear()
                    await self._slot_freed.wait()

    async def _run_group(self, index: int) -> None:
        group_id = f"g{index:06d}"
        task = self._next_task(index)
        await self._journal.record_group(group_id, index, task)
        async with asyncio.TaskGroup() as attempts:
            running = [
                attempts.create_task(self._run_attempt(EpisodeSpec(task, group_id, attempt, episode_seed(self._seed, index, attempt))))
                for attempt in range(self._config.group_size)
            ]
        group = Group(group_id, index, task, tuple(attempt.result() for attempt in running))
        self._count(group)
        self._groups[index] = group
        self._window.finish(index, has_gradient=group.has_gradient)
        await self._discard_degenerate()
        self._group_finished.set()

    async def _run_attempt(self, spec: EpisodeSpec) -> Episode:
        """Runs one attempt, again while it fails on our side; the last episode counts."""
        for retry in range(self._config.infra_retries):
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
        return (self._version.step if self._version else 0) + len(self._unpublished)

    async def _hand_out(self, started: float) -> StepTake:
        await self._record_consumed(self._taking, step=self._policy_step + 1, reason="trained")
        groups, degenerate = tuple(self._taking), tuple(self._degenerate)
        ages = tuple(self._age(group) for group in groups)
        self._unpublished.append(groups)
        self._taking, self._degenerate = [], []
        self._counts["trained"] += len(groups)
        self._ages.update(ages)
        return StepTake(groups, degenerate, time.monotonic() - started, ages)

    async def _record_consumed(self, groups: list[Group], *, step: int, reason: Literal["trained", "degenerate"]) -> None:
        await asyncio.gather(*(self._journal.record_consumed(group.group_id, step=step, reason=reason) for group in groups))

    def _age(self, group: Group) -> int:
        """0 before the first publication, when there is one policy only; attempts that failed are not trained and have no age."""
        if self._version is None:
            return 0
        training = dataclasses.replace(self._version, step=self._policy_step)
        return max((version.age_at(training) for version in _versions(group)), default=0)


def episode_seed(run_seed: int, index: int, attempt: int) -> int:
    """64 bits that depend on these three numbers alone: the same on every machine and in every process."""
    digest = hashlib.blake2b(f"{run_seed}/{index}/{attempt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _failed_on_our_side(episode: Episode) -> bool:
    return episode.status == "failed" and episode.failure is not None and episode.failure.boundary in _RETRIED_BOUNDARIES


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
