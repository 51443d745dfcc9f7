"""The conductor: one run from recipe to summary. Owns the order of things; parts know nothing of it.

certificates ─► policy folder ─► trainer up ─► cold start on demonstrations
                                                  │ weights v0
                         engine, gateway, journal up ─► held-out evaluation
                                                  │
                          stage: RL (or a control arm), sampling and training overlapped
                                                  │
                         held-out evaluation on the same tasks ─► curve.png, summary.json ─► all down

A resumed run takes the same way and passes over what is done: a cold start that was saved, evaluations that have their row, RL up
to the newest checkpoint that restores. Everything else is begun again.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.errors import CertificateError
from trunkline.evals.heldout import Evaluation, evaluate
from trunkline.metrics.base import RunInfo
from trunkline.metrics.console import ProgressView
from trunkline.metrics.jsonl import newest_rows, read_metrics
from trunkline.metrics.processes import ProcessMeter
from trunkline.metrics.writers import MetricsWriters, SinkMaker, find_sinks
from trunkline.models.tokenizer import Tokenizer
from trunkline.pool.backlog import Backlog
from trunkline.protocols import Taskset
from trunkline.run.agent_side import check_agent_fits
from trunkline.run.costs import RunMeter
from trunkline.run.curve import TrainingCurve, draw_curve
from trunkline.run.directory import RunDirectory
from trunkline.run.history import RunHistory, evaluation_row
from trunkline.run.processes import socket_directory
from trunkline.run.recipe import Recipe
from trunkline.run.restore import report_restart, restore
from trunkline.run.resume import Resumption
from trunkline.run.stages import Bench, DemonstrationStream, publish, reinforce, rejection_sample, supervise
from trunkline.run.wiring import RolloutSide, guarded, make_policy_folder, make_renderer, rollout_side, trainer_side
from trunkline.tasks.base import CertifiableTaskset
from trunkline.tasks.catalog import load_taskset
from trunkline.tasks.certificates.generator import certify_taskset, taskset_subject
from trunkline.tasks.certificates.requirement import Standing, require, standing
from trunkline.tasks.certificates.store import CertificateStore


@dataclass(frozen=True)
class _Ground:
    """What a run stands on, found before anything is written."""

    recipe: Recipe
    """What to do."""
    sinks: Mapping[str, SinkMaker]
    """Where numbers go besides metrics.jsonl."""
    taskset: Taskset
    """Where tasks come from."""
    standing: Standing
    """Which certificates it rests on, and what has none though the recipe allows it."""


async def train(recipe: Recipe, view: ProgressView) -> dict[str, Any]:
    """Runs the recipe and returns the summary. Raises TrunklineError with the cause if any part fails."""
    ground = _ground(recipe, view)
    directory = RunDirectory.create(recipe)
    with directory.held():
        return await _run(ground, directory, RunHistory(), view)


async def resume(asked: Resumption, view: ProgressView) -> dict[str, Any]:
    """Goes on with a run that ended early and returns its summary; of one that is finished, and stays as long, only that.

    Raises ConfigError if another process is at it or its record is damaged, and what `train` raises.
    """
    directory = asked.directory
    with directory.held():
        summary = directory.read_summary()
        if summary is not None and not asked.has_more_steps:
            view.note(f"the run in {directory.path} is finished; there is nothing to resume")
            return summary
        history = RunHistory.read(directory)
        ground = _ground(asked.recipe, view)
        directory.remove_leftovers()
        directory.remove_summary()
        directory.write_recipe(asked.recipe)
        for key, (was, now) in asked.changed.items():
            view.note(f"{key} was {was!r}, is {now!r} from now on")
        return await _run(ground, directory, history, view)


def _ground(recipe: Recipe, view: ProgressView) -> _Ground:
    sinks = find_sinks(recipe.metrics.writers)
    taskset = load_taskset(recipe.taskset.name, recipe.taskset.options)
    check_agent_fits(recipe, taskset)
    for split in ("train", "heldout", *recipe.taskset.harder_splits):
        taskset.task(split, 0)  # one that is unknown or empty is refused before anything is written
    return _Ground(recipe, sinks, taskset, _standing(taskset, recipe, view))


async def _run(ground: _Ground, directory: RunDirectory, history: RunHistory, view: ProgressView) -> dict[str, Any]:
    recipe, taskset = ground.recipe, ground.taskset
    meter = RunMeter(ProcessMeter(), history.costs)
    policy = await _starting_policy(recipe, directory)
    tokenizer = Tokenizer.load(policy)
    renderer = make_renderer(recipe, tokenizer, policy)
    resumed_at = history.newest_checkpoint if history.is_resumed else None
    info = RunInfo(directory.path, recipe.name, recipe.model_dump(mode="json", exclude_none=True), resumed_at)
    with socket_directory() as sockets, MetricsWriters.open(directory.path / "metrics.jsonl", ground.sinks, info, view.note) as metrics:
        async with trainer_side(recipe, directory, sockets, model=policy) as trainer:
            bench = Bench(recipe, directory, taskset, renderer, trainer.client, trainer.child.process.pid, meter, metrics, view)
            stream = DemonstrationStream(bench, recipe.cold_start)
            start_policy = await guarded(_cold_start(bench, stream, tokenizer), trainer.child.watch())
            async with rollout_side(
                recipe, directory, sockets, model=start_policy, taskset=taskset, renderer=renderer
            ) as rollout:  # fmt: skip
                work = _stage_between_evaluations(bench, rollout, stream, history)
                evaluations = await guarded(work, trainer.child.watch(), rollout.watch())
            await _save_policy(bench, "final", tokenizer)
    return _summarise(bench, evaluations, ground.standing, history)


def _standing(taskset: Taskset, recipe: Recipe, view: ProgressView) -> Standing:
    """No certificate, no reward: a generator of tasks gets a missing one now, single tasks must have theirs, or the run is refused.

    Where the recipe allows to do without, says loudly which have none.
    """
    store = CertificateStore.default()
    try:
        _certify_generator(taskset, store, view)
        return Standing(require(taskset, store), {})
    except CertificateError as error:
        if not recipe.allow_uncertified:
            raise
        view.note(f"WARNING: training on uncertified tasks, because allow_uncertified is set (summary.json names them all): {error}")
        return standing(taskset, store)


def _certify_generator(taskset: Taskset, store: CertificateStore, view: ProgressView) -> None:
    """Puts a certificate into the store if the taskset is a generator of tasks that has none; it takes CPU seconds."""
    if isinstance(taskset, CertifiableTaskset) and store.get(taskset_subject(taskset)) is None:
        view.note(f"no certificate for taskset {taskset.name!r} yet: certifying it")
        store.put(certify_taskset(taskset))


async def _starting_policy(recipe: Recipe, directory: RunDirectory) -> Path:
    """What the trainer's process begins with: the cold start's end if an earlier incarnation came that far."""
    if directory.checkpoint("cold-start").exists():
        return directory.checkpoint("cold-start")
    if recipe.model.folder is not None:
        return recipe.model.folder
    folder = directory.checkpoint("initial")
    shutil.rmtree(folder, ignore_errors=True)  # half of one, if making it was cut short
    await make_policy_folder(recipe, folder)
    return folder


async def _cold_start(bench: Bench, stream: DemonstrationStream, tokenizer: Tokenizer) -> Path:
    """The policy after the cold start, which has no checkpoints of its own: one that was cut short is begun again."""
    config = bench.recipe.cold_start
    folder = bench.directory.checkpoint("cold-start")
    if not folder.exists():
        if config.steps:
            await supervise(bench, stream, phase="cold start", steps=config.steps, optimizer=config.optimizer)
        return await _save_policy(bench, "cold-start", tokenizer)
    if bench.recipe.stage.method == "supervision":
        bench.view.note("further supervision goes on behind the cold start's demonstrations: these are rendered once more")
        await asyncio.to_thread(stream.skip, config.steps)
    return folder


async def _save_policy(bench: Bench, name: str, tokenizer: Tokenizer) -> Path:
    """Saves the trainer's policy as a folder that transformers, `model.path` and the engine load; it appears whole."""
    with bench.directory.replacing_checkpoint(name) as temporary:
        await bench.trainer.save_model(temporary)
        tokenizer.save(temporary)
    return bench.directory.checkpoint(name)


async def _stage_between_evaluations(
    bench: Bench, rollout: RolloutSide, stream: DemonstrationStream, history: RunHistory
) -> dict[str, Evaluation]:
    evaluations = await _evaluate(bench, rollout, history, moment="start") if bench.recipe.evaluation.before else {}
    stage = bench.recipe.stage
    if history.is_resumed and stage.method != "rl":
        report_restart(bench, rollout)
    match stage.method:
        case "rl":
            backlog = await restore(bench, rollout, history) if history.is_resumed else Backlog()
            await reinforce(bench, rollout, backlog)
        case "supervision":
            await supervise(bench, stream, phase="further supervision", steps=stage.steps, optimizer=stage.optimizer)
            await publish(bench, rollout, stage.steps)
        case "rejection_sampling":
            await rejection_sample(bench, rollout)
    return evaluations | await _evaluate(bench, rollout, history, moment="end")


async def _evaluate(bench: Bench, rollout: RolloutSide, history: RunHistory, *, moment: str) -> dict[str, Evaluation]:
    """Held-out success at temperature 1, greedy, and on the harder splits; its CPU is not counted. One that has its row is read back."""
    config = bench.recipe.evaluation
    plan = [(moment, "heldout", rollout.runner, config.episodes)]
    if config.greedy:
        plan.append((f"{moment}.greedy", "heldout", rollout.greedy_runner, config.greedy_episodes or config.episodes))
    plan += [(f"{moment}.{split}", split, rollout.runner, config.episodes) for split in bench.recipe.taskset.harder_splits]
    evaluations: dict[str, Evaluation] = {}
    step = 0 if moment == "start" else bench.recipe.stage.steps
    with bench.meter.excluded():
        for name, split, runner, num_episodes in plan:
            done = history.evaluation(name, step=step, num_episodes=num_episodes)
            if done is not None:
                evaluations[name] = done
                continue
            bench.view.start(f"evaluation: {name}", num_episodes)
            result = await evaluate(
                runner,
                bench.taskset,
                name=f"heldout.{name}",
                split=split,
                num_episodes=num_episodes,
                concurrency=config.concurrency,
                seed=bench.recipe.seed,
                progress=lambda done, success: bench.view.advance(done, success=success),
            )
            bench.view.stop()
            bench.directory.write_episodes(result.name, result.episodes)
            bench.report("evaluation", **evaluation_row(result, name=name, split=split, step=step))
            evaluations[name] = result
    return evaluations


def _summarise(bench: Bench, evaluations: dict[str, Evaluation], certified: Standing, history: RunHistory) -> dict[str, Any]:
    recipe, costs = bench.recipe, bench.meter.costs()
    points = [(step, evaluations[name].success) for step, name in ((0, "start"), (recipe.stage.steps, "end")) if name in evaluations]
    rows = newest_rows(read_metrics(bench.directory.path / "metrics.jsonl"), "rl", by="step")
    summary = {
        "name": recipe.name,
        "run_dir": str(bench.directory.path),
        "method": recipe.stage.method,
        "seed": recipe.seed,
        "certificates": dict(certified.certificates),
        "uncertified": list(certified.uncertified),
        "heldout_success_start": evaluations["start"].success.as_dict() if recipe.evaluation.before else None,
        "heldout_success_end": evaluations["end"].success.as_dict(),
        "evaluations": {name: result.as_dict() for name, result in evaluations.items()},
        "cold_start_steps": recipe.cold_start.steps,
        "rl_steps": len(rows),
        "num_resumes": history.num_resumes + history.is_resumed,
        "cpu_seconds": round(costs.cpu_seconds, 1),
        "evaluation_cpu_seconds": round(costs.evaluation_cpu_seconds, 1),
        "wall_seconds": round(costs.wall_seconds, 1),
        "peak_rss_bytes": costs.peak_rss_bytes,
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    draw_curve(
        bench.directory.path / "curve.png",
        title=f"{recipe.name}, seed {recipe.seed}",
        curve=TrainingCurve.from_rows(rows),
        heldout=points,
    )
    bench.directory.write_summary(summary)  # last: a run with a summary is finished
    return summary
