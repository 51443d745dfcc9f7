"""What a run directory says of its training, as numbers for the doctor's checks. Owns the reading; judges nothing.

metrics.jsonl  every step            journal.sqlite  how the newest groups went, call by call
recipe.toml    what was asked for    summary.json    whether the run came to its end

Any of them may be missing or end early: the run is young, goes on, or crashed.
"""

from __future__ import annotations

import itertools
import tomllib
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trunkline.episodes.composite_reward import verdict_of
from trunkline.errors import ConfigError, InfraError
from trunkline.metrics.jsonl import read_metrics
from trunkline.pool.config import PoolConfig
from trunkline.pool.journal_reader import JournalReader
from trunkline.types import Episode, Group

NEWEST_GROUPS = 64
"""Groups whose calls are looked at: the state of now, in a time that does not grow with them; a guess."""


NEWEST_LONE_EPISODES = 512
"""Ended attempts that are looked at while no group ended; a guess."""
OUT_OF_TURNS = "OutOfTurns"
"""Kind of cut of an attempt that earned nothing and whose last completion still asked for a tool."""


@dataclass(frozen=True)
class EpisodeCounts:
    """How the newest ended groups went, counted over their episodes and calls."""

    num_groups: int = 0
    """Groups counted."""
    num_all_zero: int = 0
    """Groups whose valid attempts all earned 0 or less."""
    num_all_one: int = 0
    """Groups whose valid attempts all earned 1 or more."""
    num_all_other: int = 0
    """Groups whose valid attempts all earned the same, something between."""
    num_too_few: int = 0
    """Groups with fewer than two valid attempts."""
    num_episodes: int = 0
    """Attempts in these groups."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Attempts without a verdict by 'boundary/kind' of their cause."""
    cuts: Mapping[str, int] = field(default_factory=dict)
    """Attempts that ran out of time or budget, by kind of cause; OUT_OF_TURNS where the agent itself gave up amid its work."""
    num_cut_unpaid: int = 0
    """Those of them that earned nothing."""
    num_judged: int = 0
    """Attempts with a verdict."""
    total_reward: float = 0.0
    """Sum of what their verifiers gave them."""
    num_unpaid: int = 0
    """Judged attempts that earned nothing."""
    num_unpaid_silent: int = 0
    """Those of them in which the model was never sampled to an end: their 0 is not the policy's doing."""
    num_tool_users: int = 0
    """Attempts that called a tool."""
    num_calls: int = 0
    """Completions."""
    num_length_cuts: int = 0
    """Completions that ended by their limit of tokens."""
    num_followers: int = 0
    """Completions after their attempt's first."""
    num_branches: int = 0
    """Those of them that began a new branch instead of extending tokens on record."""
    num_tokens: int = 0
    """Sampled tokens."""
    surprise: float = 0.0
    """Sum of -log p over them, in nats."""
    drops: Mapping[str, int] = field(default_factory=dict)
    """Sampled tokens of completions that may not be trained, by reason."""

    @property
    def entropy(self) -> float | None:
        """Mean -log p of a sampled token in nats; None without tokens."""
        return self.surprise / self.num_tokens if self.num_tokens else None

    @property
    def reward(self) -> float | None:
        """Mean verdict of a judged attempt; None without any."""
        return self.total_reward / self.num_judged if self.num_judged else None

    @classmethod
    def of(cls, groups: Sequence[Group], lone: Iterable[Episode] = ()) -> EpisodeCounts:
        """Counts groups that ended, and episodes of evaluations, which have no group."""
        counts = Counter(num_groups=len(groups)) + Counter(_fate(group) for group in groups)
        failures: Counter[str] = Counter()
        cuts: Counter[str] = Counter()
        drops: Counter[str] = Counter()
        surprise = total_reward = 0.0
        for episode in itertools.chain(*(group.episodes for group in groups), lone):
            counts.update(_episode_counts(episode))
            total_reward += verdict_of(episode) or 0.0
            if episode.status == "failed":
                failures[f"{episode.failure.boundary}/{episode.failure.kind}" if episode.failure else "unknown/no cause given"] += 1
            elif (cut := _cut(episode)) is not None:
                cuts[cut] += 1
            for completion in episode.completions:
                surprise -= sum(completion.generation.logprobs)
                if completion.drop_reason is not None:
                    drops[completion.drop_reason] += completion.num_sampled
        counts.pop("with_gradient", None)
        return cls(**counts, failures=failures, cuts=cuts, drops=drops, surprise=surprise, total_reward=total_reward)


@dataclass(frozen=True)
class RunRecord:
    """One run as far as it is written."""

    recipe: Mapping[str, Any]
    """The resolved recipe; empty if there is none to read."""
    steps: Sequence[Mapping[str, Any]]
    """Rows of kind "rl", one a step, in order; of a step that was done again after a resume the last."""
    evaluations: Mapping[str, Mapping[str, Any]]
    """Rows of kind "evaluation" by name, such as 'start' and 'end'."""
    counts: EpisodeCounts | None
    """How the newest groups went; None without a journal."""
    is_finished: bool
    """True if summary.json is there; else the run goes on, or ended before its time."""

    @classmethod
    def read(cls, run_dir: Path) -> RunRecord:
        """Raises InfraError if `run_dir` is no run directory, or a file in it cannot be read."""
        if not (run_dir / "recipe.toml").exists() and not (run_dir / "metrics.jsonl").exists():
            raise InfraError(f"{run_dir} holds neither recipe.toml nor metrics.jsonl; give a run directory, such as runs/quickstart-seed1")
        rows = read_metrics(run_dir / "metrics.jsonl") if (run_dir / "metrics.jsonl").exists() else []
        steps = {row["step"]: row for row in rows if row.get("kind") == "rl" and "step" in row}
        return cls(
            recipe=_read_recipe(run_dir / "recipe.toml"),
            steps=[steps[step] for step in sorted(steps)],
            evaluations={row["name"]: row for row in rows if row.get("kind") == "evaluation" and "name" in row},
            counts=_read_counts(run_dir / "journal.sqlite"),
            is_finished=(run_dir / "summary.json").exists(),
        )

    def knob(self, name: str, default: Any = None) -> Any:
        """A recipe's value by its dotted name; `default` where it is not written."""
        value: Any = self.recipe
        for key in name.split("."):
            if not isinstance(value, Mapping) or key not in value:
                return default
            value = value[key]
        return value

    def column(self, *names: str) -> list[float]:
        """A metric over all steps that have it; the first of `names` that any step has (an older name comes last)."""
        for name in names:
            values = [float(row[name]) for row in self.steps if row.get(name) is not None]
            if values:
                return values
        return []

    @property
    def max_age(self) -> int | None:
        """The bound on the age of a trained group that the recipe's window gives; None if the recipe does not say."""
        try:
            return PoolConfig.model_validate(self.recipe["pool"]).window.max_age
        except (KeyError, ValidationError):
            return None


def _read_recipe(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InfraError(f"cannot read the run's recipe {path}: {error}; restore it, or remove it to look at the rest") from error


def _read_counts(path: Path) -> EpisodeCounts | None:
    if not path.exists():
        return None
    try:
        with JournalReader.open(path) as journal:
            newest = list(dict.fromkeys(group_id for group_id, *_ in reversed(journal.consumed())))[:NEWEST_GROUPS]
            if newest:
                return EpisodeCounts.of([journal.read_group(group_id) for group_id in newest])
            # A run that ended in its first evaluation, or has not finished a group: then all that ended tells how it stands.
            return EpisodeCounts.of((), lone=deque(journal.episodes(), maxlen=NEWEST_LONE_EPISODES))
    except ConfigError as error:
        raise InfraError(f"{error}; remove it to look at the rest of the run") from error


def _fate(group: Group) -> str:
    """The field of EpisodeCounts that the group belongs to."""
    rewards = group.valid_rewards
    if len(rewards) < 2:
        return "num_too_few"
    if group.has_gradient:
        return "with_gradient"
    if rewards[0] <= 0:
        return "num_all_zero"
    return "num_all_one" if rewards[0] >= 1 else "num_all_other"


def _cut(episode: Episode) -> str | None:
    """What cut a judged attempt short; None if it ended by itself."""
    if episode.status == "deadline":
        return episode.failure.kind if episode.failure else "no cause given"
    last = episode.completions[-1].reply_node if episode.completions else None
    is_amid_work = last is not None and bool(episode.messages[last].message.tool_calls)
    return OUT_OF_TURNS if is_amid_work and _is_unpaid(episode) else None


def _is_unpaid(episode: Episode) -> bool:
    verdict = verdict_of(episode)
    return verdict is not None and verdict <= 0


def _episode_counts(episode: Episode) -> dict[str, int]:
    calls = episode.completions
    is_unpaid = _is_unpaid(episode)
    is_silent = all(call.generation.finish_reason == "abort" for call in calls)
    return {
        "num_episodes": 1,
        "num_judged": int(episode.reward is not None),
        "num_cut_unpaid": int(is_unpaid and _cut(episode) is not None),
        "num_unpaid": int(is_unpaid),
        # What ran out of time before the model's first answer is counted as cut.
        "num_unpaid_silent": int(is_unpaid and is_silent and episode.status == "finished"),
        "num_tool_users": int(any(node.message.tool_calls for node in episode.messages)),
        "num_calls": len(calls),
        "num_length_cuts": sum(call.generation.finish_reason == "length" for call in calls),
        "num_followers": max(0, len(calls) - 1),
        "num_branches": sum(call.parent_id is None for call in itertools.islice(calls, 1, None)),
        "num_tokens": sum(call.num_sampled for call in calls),
    }
