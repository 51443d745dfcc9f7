"""Held-out evaluation: runs fixed tasks once each and counts verified successes. Owns no training and no sampling rule."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trunkline.episodes.composite_reward import verdict_of
from trunkline.errors import InfraError
from trunkline.evals.statistics import Proportion, proportion
from trunkline.protocols import EpisodeRunner, EpisodeSpec, Taskset
from trunkline.types import Episode


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found."""

    name: str
    """Such as 'start' or 'end.greedy'."""
    success: Proportion
    """Over all episodes that reached a verdict."""
    by_kind: dict[str, Proportion]
    """The same by task kind."""
    num_failed: int
    """Episodes without a verdict, left out of the rates."""
    episodes: tuple[Episode, ...]
    """Every episode, by task index."""

    def as_dict(self) -> dict[str, Any]:
        """The rates, for summary.json."""
        by_kind = {kind: rate.as_dict() for kind, rate in self.by_kind.items()}
        return {**self.success.as_dict(), "num_failed": self.num_failed, "by_kind": by_kind}


async def evaluate(
    runner: EpisodeRunner,
    taskset: Taskset,
    *,
    name: str,
    split: str,
    num_episodes: int,
    concurrency: int,
    seed: int,
    progress: Callable[[int, float], None] = lambda done, success: None,
) -> Evaluation:
    """One episode on each of the split's first tasks; success = the verifier's full reward, whatever else is rewarded.

    `progress(done, success so far)` is called after each episode. Raises InfraError if no episode reached a verdict.
    """
    gate = asyncio.Semaphore(concurrency)
    tasks = [taskset.task(split, index) for index in range(num_episodes)]
    done = successes = 0

    async def attempt(index: int) -> Episode:
        nonlocal done, successes
        async with gate:
            episode = await runner.run(EpisodeSpec(tasks[index], f"{name}-{index:05d}", 0, seed + index))
        done += 1
        successes += succeeded(episode)
        progress(done, successes / done)
        return episode

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(attempt(index)) for index in range(num_episodes)]
    episodes = tuple(task.result() for task in running)
    judged = [(task.kind, succeeded(episode)) for task, episode in zip(tasks, episodes, strict=True) if episode.reward is not None]
    if not judged:
        raise InfraError(f"evaluation {name}: none of {num_episodes} episodes reached a verdict; first cause: {episodes[0].failure}")
    totals = Counter(kind for kind, _ in judged)
    wins = Counter(kind for kind, won in judged if won)
    return Evaluation(
        name=name,
        success=proportion(sum(wins.values()), len(judged)),
        by_kind={kind: proportion(wins[kind], totals[kind]) for kind in sorted(totals)},
        num_failed=num_episodes - len(judged),
        episodes=episodes,
    )


def succeeded(episode: Episode) -> bool:
    """True if the verifier gave the episode its full reward."""
    return (verdict_of(episode) or 0.0) >= 1.0
