"""What metrics.jsonl says of a step: rewards, ages, and where every sampled token went. Owns the names, writes no file.

docs/02-metrics.md explains each; a test holds the two together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from trunkline.evals.heldout import succeeded
from trunkline.pool.takes import PoolStats, StepTake
from trunkline.types import Episode, Group, StepStats

AFTER_STOP = "after a stop string"
_LOAD = ("load_violation", "load_violation_worst")


def take_episodes(take: StepTake) -> list[Episode]:
    """Every episode that a step consumed, those of groups without gradient included."""
    return [episode for group in (*take.groups, *take.degenerate) for episode in group.episodes]


def step_numbers(take: StepTake, stats: StepStats) -> dict[str, Any]:
    """One RL step. `sampled_tokens` = `trained_tokens` + the sum of `dropped_tokens`, by reason."""
    episodes = take_episodes(take)
    valid = [episode for episode in episodes if episode.reward is not None]
    completions = [completion for episode in episodes for completion in episode.completions]
    return {
        "step": stats.step,
        "reward": _mean([episode.reward for episode in valid if episode.reward is not None]),
        "success": _mean([succeeded(episode) for episode in valid]),
        "age_mean": _mean(take.ages),
        "age_max": max(take.ages, default=0),
        "num_groups": len(take.groups),
        "num_degenerate_groups": len(take.degenerate),
        "num_failed_episodes": sum(episode.status == "failed" for episode in episodes),
        "num_deadline_episodes": sum(episode.status == "deadline" for episode in episodes),
        "failures": failures(episodes),
        "num_branches": sum(completion.parent_id is None for completion in completions) - len(episodes),
        "lineages": dict(Counter(completion.facts.lineage for completion in completions)),
        "wires": dict(Counter(completion.facts.wire for completion in completions)),
        "num_format_errors": sum(completion.facts.format_error is not None for completion in completions),
        "num_foreign_turns": sum(completion.facts.num_foreign for completion in completions),
        "not_honoured": dict(Counter(words for completion in completions for words in completion.facts.not_honoured)),
        "sampled_tokens": sum(completion.num_sampled + completion.facts.num_discarded for completion in completions),
        "trained_tokens": stats.num_trained_tokens,
        "dropped_tokens": dropped_tokens((*take.groups, *take.degenerate)),
        "wait_seconds": take.wait_s,
        "num_window_stalls": take.num_stalls,
        "loss": stats.loss,
        "grad_norm": stats.grad_norm,
        "learning_rate": stats.learning_rate,
        "num_samples": stats.num_samples,
        "flat_tokens": stats.num_flat_tokens,
        "forest_tokens": stats.num_forest_tokens,
        "merged_token_ratio": stats.num_flat_tokens / stats.num_forest_tokens,
        "trajectory_tokens": trajectory_tokens(take.groups),
        "flop_ratio": stats.flop_ratio,
        "train_seconds": stats.seconds,
        **stats.extra,
    }


def end_numbers(stats: PoolStats) -> dict[str, int]:
    """Where every submitted group of an RL stage went; unconsumed ones were still running or waiting when it ended, and are dropped."""
    return {
        "num_submitted_groups": stats.num_submitted,
        "num_trained_groups": stats.num_trained,
        "num_degenerate_groups": stats.num_degenerate,
        "num_unconsumed_groups": stats.num_submitted - stats.num_trained - stats.num_degenerate,
        "num_failed_episodes": stats.num_failed,
        "num_retried_episodes": stats.num_retried,
        "num_deadline_episodes": stats.num_deadline,
    }


def dropped_tokens(groups: Sequence[Group]) -> dict[str, int]:
    """Sampled tokens that are not trained, by reason; the first reason that holds counts."""
    dropped: Counter[str] = Counter()
    for group in groups:
        for episode in group.episodes:
            for completion in episode.completions:
                reason = _reason(group, episode) or completion.drop_reason
                if reason is not None:
                    dropped[reason] += completion.num_sampled
                dropped[AFTER_STOP] += completion.facts.num_discarded
    return {reason: num for reason, num in dropped.items() if num}


def failures(episodes: Sequence[Episode]) -> dict[str, int]:
    """Failed episodes by 'boundary/kind' of their cause."""
    causes = [episode.failure for episode in episodes if episode.status == "failed" and episode.failure is not None]
    return dict(Counter(f"{cause.boundary}/{cause.kind}" for cause in causes))


def trajectory_tokens(groups: Sequence[Group]) -> int:
    """Tokens if only the calls of one trajectory were merged: what a trainer computes that concatenates turns but shares no trunk.

    Every chain of calls counts once, with the context and completion of its last call.
    """
    total = 0
    for group in groups:
        for episode in group.episodes:
            if episode.status != "failed":
                extended = {completion.parent_id for completion in episode.completions}
                last = [completion for completion in episode.completions if completion.completion_id not in extended]
                total += sum(len(completion.prompt_ids) + completion.num_sampled for completion in last)
    return total


def _reason(group: Group, episode: Episode) -> str | None:
    if episode.status == "failed":
        return "episode failed"
    return None if group.has_gradient else "group without gradient"


def supervised_numbers(phase: str, stats: Sequence[StepStats]) -> dict[str, Any]:
    """Some supervised steps in a row."""
    return {
        "phase": phase,
        "step": stats[-1].step,
        "loss": _mean([step.loss for step in stats]),
        "learning_rate": stats[-1].learning_rate,
        "flat_tokens": sum(step.num_flat_tokens for step in stats),
        "forest_tokens": sum(step.num_forest_tokens for step in stats),
        "train_seconds": sum(step.seconds for step in stats),
        **{name: stats[-1].extra[name] for name in _LOAD if name in stats[-1].extra},
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
