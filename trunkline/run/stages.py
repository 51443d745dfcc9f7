"""What a run does to its policy: cold start, RL, and the control arms. Owns the loops; parts are handed in, ready.

reinforce, the main loop (sampling goes on in the pool while a step is trained):

    pool.run ── episodes ──► finished groups ──► window
                                                   │ take P groups with gradient
         ┌──────────── slots freed ◄── engine ◄── publish v+1 ◄── one optimiser step
         ▼
      new groups admitted
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trunkline.agents.context_management import load_method
from trunkline.agents.workspace_tools import workspace_specs
from trunkline.episodes.demonstrations import Managed, demonstrations_from_episodes, render_demonstrations
from trunkline.evals.heldout import succeeded
from trunkline.gateway.base import Renderer
from trunkline.metrics.console import ProgressView
from trunkline.metrics.processes import UtilisationMeter
from trunkline.metrics.writers import MetricsWriters
from trunkline.pool.backlog import Backlog
from trunkline.pool.pool import Pool, episode_seed
from trunkline.pool.takes import StepTake
from trunkline.protocols import EpisodeSpec, Taskset
from trunkline.run.agent_side import loop_settings
from trunkline.run.costs import RunMeter
from trunkline.run.directory import RunDirectory
from trunkline.run.numbers import end_numbers, step_numbers, supervised_numbers, take_episodes
from trunkline.run.processes import is_large
from trunkline.run.recipe import ColdStartConfig, Recipe
from trunkline.run.shuffle import shuffle_rewards
from trunkline.run.wiring import RolloutSide
from trunkline.trainer.client import TrainerClient
from trunkline.trainer.config import OptimizerConfig
from trunkline.trainer.samples import samples_from_groups
from trunkline.types import Demonstration, Episode, PolicyVersion, StepStats

_BATCHES_A_REQUEST = 16
_LONG_WAIT_S = 15.0
_TASKS_A_SEED = 10_000_000
_DEMONSTRATION_TASKS = 5_000_000


@dataclass(frozen=True)
class Bench:
    """What every stage works with."""

    recipe: Recipe
    """The resolved recipe."""
    directory: RunDirectory
    """Where to write."""
    taskset: Taskset
    """Where tasks come from."""
    renderer: Renderer
    """How conversations become tokens."""
    trainer: TrainerClient
    """The trainer's verbs."""
    trainer_pid: int
    """Its process, to see how busy it is."""
    meter: RunMeter
    """What the run has cost so far."""
    metrics: MetricsWriters
    """metrics.jsonl, and where else the recipe sends numbers."""
    view: ProgressView
    """Live progress."""

    def report(self, kind: str, **numbers: Any) -> None:
        """A row of metrics.jsonl, with what the run has cost until then: a resumed run adds to the last of them."""
        self.metrics.write(kind, **numbers, **asdict(self.meter.costs()))


class DemonstrationStream:
    """An endless stream of demonstrations of one run; the cold start and further supervision draw from it in order."""

    def __init__(self, bench: Bench, config: ColdStartConfig) -> None:
        self._bench = bench
        self._config = config
        method = load_method(loop_settings(bench.recipe).context)
        self._managed = Managed(method, config.managed_share) if config.managed_share else None
        self._rng = random.Random(f"{bench.recipe.seed}/demonstrations")
        self._next_task = bench.recipe.seed * _TASKS_A_SEED + _DEMONSTRATION_TASKS

    def draw(self, num_batches: int) -> list[list[Demonstration]]:
        """The next batches."""
        size = self._config.batch_size
        first = self._next_task
        self._next_task += num_batches * size
        demonstrations = render_demonstrations(
            self._bench.renderer,
            self._bench.taskset,
            [self._bench.taskset.task("train", index) for index in range(first, self._next_task)],
            self._rng,
            decision_noise=self._config.decision_noise,
            other_weight=self._config.other_weight,
            managed=self._managed,
            agent_tools=workspace_specs(self._bench.recipe.agent.workspace),
        )
        return [demonstrations[i : i + size] for i in range(0, len(demonstrations), size)]

    def skip(self, num_batches: int) -> None:
        """Passes over the next batches; they are rendered all the same, for the draws of the later ones follow from theirs."""
        for first in range(0, num_batches, _BATCHES_A_REQUEST):
            self.draw(min(_BATCHES_A_REQUEST, num_batches - first))


async def supervise(bench: Bench, stream: DemonstrationStream, *, phase: str, steps: int, optimizer: OptimizerConfig) -> None:
    """`steps` supervised steps on the stream under a fresh optimiser; batches are rendered while the trainer works."""
    await bench.trainer.begin_phase("supervised", optimizer.for_steps(steps))
    bench.view.start(phase, steps)
    done = tokens = 0
    started = time.monotonic()
    most = _batches_a_request(bench.recipe)

    def chunk_sizes() -> Iterator[int]:
        for first in range(0, steps, most):
            yield min(most, steps - first)

    sizes = chunk_sizes()
    batches = await asyncio.to_thread(stream.draw, next(sizes, 0))
    while batches:
        training = asyncio.create_task(bench.trainer.supervised_steps(batches))
        batches = await asyncio.to_thread(stream.draw, next(sizes, 0))
        stats = await training
        done += len(stats)
        tokens += sum(step.num_flat_tokens for step in stats)
        bench.meter.sample_rss()
        bench.report("supervised", **supervised_numbers(phase, stats))
        bench.view.advance(done, loss=stats[-1].loss, tokens_per_s=tokens / (time.monotonic() - started))
    bench.view.stop()


def _batches_a_request(recipe: Recipe) -> int:
    """Few enough that progress is seen, many enough that requests cost nothing."""
    folder = recipe.model.folder
    return 1 if folder is not None and is_large(folder) else _BATCHES_A_REQUEST


async def reinforce(bench: Bench, rollout: RolloutSide, backlog: Backlog) -> None:
    """RL from the backlog's step up to step `stage.steps`. Returns when that one is published; attempts still running are dropped.

    A restored trainer goes on in its phase, whose learning-rate schedule ends where it was to end when the phase began.
    """
    stage = bench.recipe.stage
    if backlog.step == 0:
        await bench.trainer.begin_phase("rl", stage.optimizer.for_steps(stage.steps), stage.loss)
    first_task = bench.recipe.seed * _TASKS_A_SEED
    pool = Pool(
        rollout.runner,
        lambda index: bench.taskset.task("train", first_task + index),
        rollout.journal,
        config=bench.recipe.pool,
        seed=bench.recipe.seed,
        backlog=backlog,
    )
    if backlog.step < stage.steps:
        await _sample_and_train(bench, rollout, pool, first_step=backlog.step + 1)
    killed = backlog.killed
    bench.report("rl_end", **end_numbers(pool.stats()), num_killed_completions=killed.num_completions, killed_tokens=killed.num_tokens)


async def _sample_and_train(bench: Bench, rollout: RolloutSide, pool: Pool, *, first_step: int) -> None:
    bench.view.start("RL", bench.recipe.stage.steps)
    sampling = asyncio.create_task(pool.run())
    training = asyncio.create_task(_training_loop(bench, rollout, pool, first_step=first_step))
    try:
        await asyncio.wait({sampling, training}, return_when=asyncio.FIRST_COMPLETED)
        if sampling.done():
            sampling.result()
        await training
    finally:
        sampling.cancel()
        training.cancel()
        await asyncio.gather(sampling, training, return_exceptions=True)
        bench.view.stop()


async def _training_loop(bench: Bench, rollout: RolloutSide, pool: Pool, *, first_step: int) -> None:
    stage = bench.recipe.stage
    load = UtilisationMeter({"engine": rollout.child.process.pid, "trainer": bench.trainer_pid})
    for step in range(first_step, stage.steps + 1):
        started = time.monotonic()
        take = await _next_take(bench, pool, step)
        groups = shuffle_rewards(take.groups, seed=bench.recipe.seed) if stage.shuffle_rewards else take.groups
        current = PolicyVersion(rollout.journal.incarnation, step - 1)
        stats = await bench.trainer.train_step(samples_from_groups(groups, baseline=stage.baseline, version=current))
        version = await publish(bench, rollout, stats.step)
        await pool.published(version)
        # Before its checkpoint: a step that a resumed run does not do again has its row.
        load_now = {**load.read(), **rollout.gateway.counts()}
        _report_step(bench, take, stats, pool=pool, seconds=time.monotonic() - started, load=load_now)
        if step % stage.checkpoint_every == 0 or step == stage.steps:
            await _checkpoint(bench, rollout, version)


async def _checkpoint(bench: Bench, rollout: RolloutSide, version: PolicyVersion) -> None:
    """Older checkpoints go only when this one is whole and on record."""
    folder = bench.directory.step_checkpoint(version.step)
    await bench.trainer.checkpoint(folder)
    await rollout.journal.record_checkpoint(version, path=folder)
    await asyncio.to_thread(bench.directory.remove_outdated_checkpoints, version.step)


async def _next_take(bench: Bench, pool: Pool, step: int) -> StepTake:
    """What step `step` is trained on; says so while nothing with a gradient comes."""
    waiting = asyncio.ensure_future(pool.next_step())
    try:
        while not (await asyncio.wait({waiting}, timeout=_LONG_WAIT_S))[0]:
            stats = pool.stats()
            bench.view.note(
                f"step {step} still waits for groups with gradient: {stats.num_running_episodes} attempts run, "
                f"{stats.num_degenerate} groups so far had equal rewards in all attempts, {stats.num_failed} attempts failed"
            )
    finally:
        waiting.cancel()
    take = waiting.result()
    assert take is not None, "the pool has no end of submissions here"
    return take


def _report_step(bench: Bench, take: StepTake, stats: StepStats, *, pool: Pool, seconds: float, load: Mapping[str, float]) -> None:
    bench.directory.write_episodes(f"step-{stats.step:06d}", take_episodes(take))
    bench.meter.sample_rss()
    numbers = step_numbers(take, stats)
    bench.report("rl", **numbers, **load, step_seconds=seconds, max_bypass=pool.stats().max_bypass)
    bench.view.advance(
        stats.step,
        reward=numbers["reward"],
        age=numbers["age_mean"],
        merged=f"{1 - stats.num_forest_tokens / stats.num_flat_tokens:.0%}",
        tokens_per_s=numbers["sampled_tokens"] / max(seconds, 1e-9),
    )


async def rejection_sample(bench: Bench, rollout: RolloutSide) -> None:
    """The control arm: rounds of sampling P groups, then supervision on the run's own verified successes."""
    recipe = bench.recipe
    await bench.trainer.begin_phase("supervised", recipe.stage.optimizer)
    bench.view.start("rejection sampling", recipe.stage.steps)
    rng = random.Random(f"{recipe.seed}/rejection")
    step = 0
    for round_index in range(recipe.stage.steps):
        episodes = await _sample_round(bench, rollout, round_index)
        bench.directory.write_episodes(f"round-{round_index + 1:06d}", episodes)
        successes = demonstrations_from_episodes([e for e in episodes if succeeded(e)], other_weight=recipe.cold_start.other_weight)
        pool = [demonstration for _ in range(recipe.stage.rejection_passes) for demonstration in rng.sample(successes, len(successes))]
        size = recipe.cold_start.batch_size
        batches = [pool[i : i + size] for i in range(0, len(pool), size)]
        most = _batches_a_request(recipe)
        for first in range(0, len(batches), most):
            stats = await bench.trainer.supervised_steps(batches[first : first + most])
            step = stats[-1].step
            bench.report("supervised", **supervised_numbers("rejection sampling", stats))
        if batches:
            await publish(bench, rollout, step)
        reward = len([e for e in episodes if succeeded(e)]) / len(episodes)
        bench.meter.sample_rss()
        bench.report("round", round=round_index + 1, reward=reward)
        bench.view.advance(round_index + 1, reward=reward)
    bench.view.stop()


async def _sample_round(bench: Bench, rollout: RolloutSide, round_index: int) -> list[Episode]:
    config = bench.recipe.pool
    num_groups = config.window.groups_per_step
    first = bench.recipe.seed * _TASKS_A_SEED + round_index * num_groups
    specs = [
        EpisodeSpec(task, f"round-{round_index:06d}-g{g:03d}", attempt, episode_seed(bench.recipe.seed, first + g, attempt))
        for g, task in enumerate(bench.taskset.task("train", first + g) for g in range(num_groups))
        for attempt in range(config.group_size)
    ]
    return list(await asyncio.gather(*(rollout.runner.run(spec) for spec in specs)))


async def publish(bench: Bench, rollout: RolloutSide, step: int) -> PolicyVersion:
    """Hands the trainer's current weights to the engine under (incarnation, step)."""
    version = PolicyVersion(rollout.journal.incarnation, step)
    reference = await bench.trainer.publish(version, bench.directory.weights)
    await rollout.engine.update_weights(reference)
    await rollout.journal.record_published(version)
    return version
