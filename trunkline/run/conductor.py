"""The conductor: one run from recipe to summary. Owns the order of things; parts know nothing of it.

certificate ─► policy folder ─► trainer up ─► cold start on demonstrations
                                                  │ weights v0
                         engine, gateway, journal up ─► held-out evaluation
                                                  │
                          stage: RL (or a control arm), sampling and training overlapped
                                                  │
                         held-out evaluation on the same tasks ─► summary.json, curve.png ─► all down
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from trunkline.errors import CertificateError
from trunkline.evals.heldout import Evaluation, evaluate
from trunkline.metrics.console import ProgressView
from trunkline.metrics.jsonl import MetricsLog, read_metrics
from trunkline.metrics.processes import ProcessMeter
from trunkline.models.tokenizer import Tokenizer
from trunkline.protocols import Taskset
from trunkline.run.curve import draw_curve
from trunkline.run.directory import RunDirectory
from trunkline.run.processes import socket_directory
from trunkline.run.recipe import Recipe
from trunkline.run.stages import Bench, DemonstrationStream, publish, reinforce, rejection_sample, supervise
from trunkline.run.wiring import RolloutSide, guarded, make_policy_folder, make_renderer, rollout_side, trainer_side
from trunkline.tasks.catalog import load_taskset
from trunkline.tasks.certificate import CertificateStore, certify, require


async def train(recipe: Recipe, view: ProgressView) -> dict[str, Any]:
    """Runs the recipe and returns the summary. Raises TrunklineError with the cause if any part fails."""
    meter = ProcessMeter()
    taskset = load_taskset(recipe.taskset.name, recipe.taskset.options)
    certificate = _certificate_key(taskset, recipe, view)
    directory = RunDirectory.create(recipe)
    policy = await _starting_policy(recipe, directory)
    tokenizer = Tokenizer.load(policy)
    renderer = make_renderer(recipe, tokenizer, policy)
    metrics = MetricsLog(directory.path / "metrics.jsonl")
    cold_start = recipe.cold_start
    with socket_directory() as sockets:
        async with trainer_side(recipe, directory, sockets, model=policy) as trainer:
            bench = Bench(recipe, directory, taskset, renderer, trainer.client, meter, metrics, view)
            stream = DemonstrationStream(bench, cold_start)
            if cold_start.steps:
                phase = supervise(bench, stream, phase="cold start", steps=cold_start.steps, optimizer=cold_start.optimizer)
                await guarded(phase, trainer.child.watch())
            start_policy = await _save_policy(bench, "cold-start", tokenizer)
            async with rollout_side(
                recipe, directory, sockets, model=start_policy, taskset=taskset, renderer=renderer
            ) as rollout:  # fmt: skip
                work = _stage_between_evaluations(bench, rollout, stream)
                evaluations = await guarded(work, trainer.child.watch(), rollout.watch())
            await _save_policy(bench, "final", tokenizer)
    return _summarise(bench, evaluations, certificate)


def _certificate_key(taskset: Taskset, recipe: Recipe, view: ProgressView) -> str | None:
    """No certificate, no reward: a missing one is made now, a failing one ends the run. None if the recipe allows to do without."""
    store = CertificateStore.default()
    try:
        if store.get(taskset) is None:
            view.note(f"no certificate for taskset {taskset.name!r} yet: certifying it")
            store.put(certify(taskset))
        return require(taskset, store).key
    except CertificateError as error:
        if not recipe.allow_uncertified:
            raise
        view.note(f"WARNING: training on uncertified tasks, because allow_uncertified is set: {error}")
        return None


async def _starting_policy(recipe: Recipe, directory: RunDirectory) -> Path:
    if recipe.model.folder is not None:
        return recipe.model.folder
    folder = directory.checkpoint("initial")
    await make_policy_folder(recipe, folder)
    return folder


async def _save_policy(bench: Bench, name: str, tokenizer: Tokenizer) -> Path:
    """Saves the trainer's policy as a folder that transformers, `model.path` and the engine load."""
    folder = bench.directory.checkpoint(name)
    await bench.trainer.save_model(folder)
    tokenizer.save(folder)
    return folder


async def _stage_between_evaluations(bench: Bench, rollout: RolloutSide, stream: DemonstrationStream) -> dict[str, Evaluation]:
    evaluations = await _evaluate(bench, rollout, moment="start")
    stage = bench.recipe.stage
    match stage.method:
        case "rl":
            await reinforce(bench, rollout)
        case "supervision":
            await supervise(bench, stream, phase="further supervision", steps=stage.steps, optimizer=stage.optimizer)
            await publish(bench, rollout, stage.steps)
        case "rejection_sampling":
            await rejection_sample(bench, rollout)
    return evaluations | await _evaluate(bench, rollout, moment="end")


async def _evaluate(bench: Bench, rollout: RolloutSide, *, moment: str) -> dict[str, Evaluation]:
    """Held-out success at temperature 1, greedy, and on the harder splits; its CPU is not counted."""
    config = bench.recipe.evaluation
    plan = [(moment, "heldout", rollout.runner, config.episodes)]
    if config.greedy:
        plan.append((f"{moment}.greedy", "heldout", rollout.greedy_runner, config.greedy_episodes or config.episodes))
    plan += [(f"{moment}.{split}", split, rollout.runner, config.episodes) for split in bench.recipe.taskset.harder_splits]
    evaluations: dict[str, Evaluation] = {}
    with bench.meter.excluded():
        for name, split, runner, num_episodes in plan:
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
            kinds = {kind: rate.value for kind, rate in result.by_kind.items()}
            bench.metrics.write("evaluation", name=name, split=split, num_failed=result.num_failed, **result.success.as_dict(), kinds=kinds)
            evaluations[name] = result
    return evaluations


def _summarise(bench: Bench, evaluations: dict[str, Evaluation], certificate: str | None) -> dict[str, Any]:
    recipe, meter = bench.recipe, bench.meter
    start, end = evaluations["start"], evaluations["end"]
    rows = [row for row in read_metrics(bench.directory.path / "metrics.jsonl") if row["kind"] == "rl"]
    summary = {
        "name": recipe.name,
        "run_dir": str(bench.directory.path),
        "method": recipe.stage.method,
        "seed": recipe.seed,
        "certificate": certificate,
        "heldout_success_start": start.success.as_dict(),
        "heldout_success_end": end.success.as_dict(),
        "evaluations": {name: result.as_dict() for name, result in evaluations.items()},
        "cold_start_steps": recipe.cold_start.steps,
        "rl_steps": len(rows),
        "cpu_seconds": round(meter.counted_cpu_seconds(), 1),
        "evaluation_cpu_seconds": round(meter.cpu_seconds() - meter.counted_cpu_seconds(), 1),
        "wall_seconds": round(meter.wall_seconds(), 1),
        "peak_rss_bytes": meter.peak_rss_bytes,
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    bench.directory.write_summary(summary)
    draw_curve(
        bench.directory.path / "curve.png",
        title=f"{recipe.name}, seed {recipe.seed}",
        steps=[row["step"] for row in rows],
        rewards=[row["reward"] for row in rows],
        start=start,
        end=end,
    )
    return summary
