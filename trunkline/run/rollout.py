"""`trunkline rollout`: agents and verifiers on a recipe's tasks, without training. Owns what is counted and written; no sampling.

policy folder ─► engine, gateway, journal up ─► one attempt at each task ─► success, tokens, seconds ─► summary.json ─► all down
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.engine.wire import WireHealth
from trunkline.evals.heldout import Evaluation, evaluate
from trunkline.gateway.base import Renderer
from trunkline.metrics.console import ProgressView
from trunkline.metrics.processes import ProcessMeter
from trunkline.models.tokenizer import Tokenizer
from trunkline.run.agent_side import check_agent_fits
from trunkline.run.directory import RunDirectory
from trunkline.run.processes import socket_directory
from trunkline.run.recipe import Recipe
from trunkline.run.wiring import guarded, make_policy_folder, make_renderer, rollout_side
from trunkline.tasks.catalog import load_taskset
from trunkline.types import Completion, Episode

EPISODES = "rollout"
"""Names the episodes and their file."""


@dataclass(frozen=True)
class RolloutPlan:
    """Which tasks are attempted, and how."""

    split: str
    """A split of the taskset, such as 'heldout' or 'train'."""
    num_episodes: int
    """One attempt at each of the split's first tasks."""
    is_greedy: bool
    """Temperature 0 instead of the recipe's."""


async def rollout(recipe: Recipe, plan: RolloutPlan, view: ProgressView) -> dict[str, Any]:
    """Runs the attempts and returns the summary.

    Raises TrunklineError with the cause if a part fails, InfraError if no attempt reached a verdict.
    """
    meter = ProcessMeter()
    taskset = load_taskset(recipe.taskset.name, recipe.taskset.options)
    taskset.task(plan.split, 0)  # an unknown split, or a folder without a model, is refused before anything is written
    check_agent_fits(recipe, taskset)
    renderer = recipe.model.folder and _renderer(recipe, recipe.model.folder)
    directory = RunDirectory.create(recipe)
    policy = recipe.model.folder or await _untrained_policy(recipe, directory, view)
    renderer = renderer or _renderer(recipe, policy)
    with socket_directory() as sockets:
        async with rollout_side(recipe, directory, sockets, model=policy, taskset=taskset, renderer=renderer) as side:
            view.start(f"rollout: {plan.split}", plan.num_episodes)
            started_s = time.monotonic()
            attempts = evaluate(
                side.greedy_runner if plan.is_greedy else side.runner,
                taskset,
                name=EPISODES,
                split=plan.split,
                num_episodes=plan.num_episodes,
                concurrency=recipe.evaluation.concurrency,
                seed=recipe.seed,
                progress=lambda done, success: view.advance(done, success=success),
            )
            result = await guarded(attempts, side.watch())
            seconds = time.monotonic() - started_s
            view.stop()
            meter.sample_rss()
            health = await side.engine.health()
    directory.write_episodes(EPISODES, result.episodes)
    summary = {
        "name": recipe.name,
        "run_dir": str(directory.path),
        "method": "rollout",
        "seed": recipe.seed,
        "model": str(recipe.model.path) if recipe.model.path else None,
        "split": plan.split,
        "temperature": 0.0 if plan.is_greedy else recipe.agent.temperature,
        "evaluations": {EPISODES: result.as_dict()},
        **_episode_numbers(result),
        **_token_numbers(result.episodes, health),
        "rl_steps": 0,
        "rollout_seconds": round(seconds, 1),
        "wall_seconds": round(meter.wall_seconds(), 1),
        "cpu_seconds": round(meter.cpu_seconds(), 1),
        "evaluation_cpu_seconds": 0.0,
        "peak_rss_bytes": meter.peak_rss_bytes,
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    directory.write_summary(summary)
    return summary


def report(summary: dict[str, Any]) -> list[str]:
    """The summary as lines for the terminal."""
    (result,) = summary["evaluations"].values()
    lines = [f"success {_rate(result)}, mean reward {summary['mean_reward']:.3f}, temperature {summary['temperature']:g}"]
    width = max(map(len, result["by_kind"]))
    lines += [f"  {kind:{width}}  {_rate(rate)}" for kind, rate in result["by_kind"].items()]
    failures = "".join(f", {cause} {count}" for cause, count in summary["failures"].items())
    lines.append(f"{summary['num_episodes']} episodes, {summary['num_failed']} failed{failures}; {summary['num_deadline']} cut by a limit")
    lines.append(
        f"{summary['num_calls']:,} calls: {summary['sampled_tokens']:,} tokens sampled, {summary['prompt_tokens']:,} of prompt "
        f"({summary['shared_prompt_tokens']:,} continue an earlier call; the engine reused {summary['reused_prompt_tokens']:,})"
    )
    lines.append(
        f"{summary['rollout_seconds']:.1f} s of rollouts, {summary['wall_seconds']:.1f} s in all, {summary['cpu_seconds']:.1f} CPU-s, "
        f"{summary['peak_rss_bytes'] / 2**20:.0f} MiB"
    )
    return [*lines, f"written to {summary['run_dir']}: summary.json, recipe.toml, episodes/{EPISODES}.jsonl, journal.sqlite"]


def _renderer(recipe: Recipe, policy: Path) -> Renderer:
    return make_renderer(recipe, Tokenizer.load(policy), policy)


async def _untrained_policy(recipe: Recipe, directory: RunDirectory, view: ProgressView) -> Path:
    view.note("the recipe has no model.path, so an untrained policy works on the tasks; choose another with --model PATH")
    folder = directory.checkpoint("initial")
    await make_policy_folder(recipe, folder)
    return folder


def _episode_numbers(result: Evaluation) -> dict[str, Any]:
    rewards = [episode.reward for episode in result.episodes if episode.reward is not None]
    causes = Counter(
        f"{episode.failure.boundary}/{episode.failure.kind}"
        for episode in result.episodes
        if episode.status == "failed" and episode.failure is not None
    )
    return {
        "num_episodes": len(result.episodes),
        "mean_reward": sum(rewards) / len(rewards),
        "num_failed": result.num_failed,
        "failures": dict(causes.most_common()),
        "num_deadline": sum(episode.status == "deadline" for episode in result.episodes),
    }


def _token_numbers(episodes: Sequence[Episode], health: WireHealth) -> dict[str, int]:
    calls: list[Completion] = [completion for episode in episodes for completion in episode.completions]
    return {
        "num_calls": len(calls),
        "sampled_tokens": sum(call.num_sampled for call in calls),
        "prompt_tokens": sum(len(call.prompt_ids) for call in calls),
        "shared_prompt_tokens": sum(call.num_shared for call in calls),
        "reused_prompt_tokens": health.tokens_reused,
    }


def _rate(rate: dict[str, Any]) -> str:
    return f"{rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}] (n = {rate['n']})"
