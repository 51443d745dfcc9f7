"""What training made of recorded attempts: which step, which advantage, or why none. Owns the look-up; the credit is the trainer's rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trunkline.pool.journal_reader import JournalReader
from trunkline.run.shuffle import shuffle_rewards
from trunkline.trainer.samples import credited
from trunkline.types import Completion, Episode, Group


@dataclass(frozen=True)
class Credit:
    """What became of one attempt."""

    step: int | None
    """The optimiser step that it was trained in; None if in none."""
    advantages: tuple[float, ...]
    """Of each completion's tokens, in order of commit; empty if no token was trained."""
    reason: str | None
    """Why no token was trained; None if some were."""

    @property
    def advantage(self) -> float | None:
        """Of the first completion, hence of all that the attempt earned; None if no token was trained."""
        return self.advantages[0] if self.advantages else None

    def drop_reason(self, call: Completion) -> str | None:
        """Why the call's tokens were not trained; None if they were."""
        return self.reason or call.drop_reason


@dataclass(frozen=True)
class TrainedEpisode:
    """An attempt with its credit."""

    episode: Episode
    """The attempt."""
    credit: Credit
    """What it got."""


class CreditBook:
    """Works out credit from a run's journal and recipe, as the run itself did."""

    def __init__(self, journal: JournalReader, recipe: Mapping[str, Any]) -> None:
        self._journal = journal
        self._stage: Mapping[str, Any] = recipe.get("stage", {})
        self._seed = int(recipe.get("seed", 0))
        # A resumed run delivers some groups again: the last time counts.
        self._consumed = {group_id: (step, reason) for group_id, step, reason in journal.consumed()}

    def credit(self, episode: Episode) -> Credit:
        """Of an episode on record."""
        consumed = self._consumed.get(episode.group_id)
        if consumed is None:
            return Credit(None, (), self._why_not_consumed(episode))
        step, reason = consumed
        if reason == "degenerate":
            return Credit(None, (), "group without gradient")
        by_id = {trained.episode.episode_id: trained.credit for trained in self._group(episode.group_id, step)}
        return by_id.get(episode.episode_id, Credit(None, (), "tried again: a later try of this attempt counts"))

    def newest_step(self) -> list[TrainedEpisode]:
        """The attempts that the newest step on record was trained on, by falling advantage; empty before the first."""
        trained = [(step, group_id) for group_id, (step, reason) in self._consumed.items() if reason == "trained"]
        newest = max((step for step, _ in trained), default=0)
        episodes = [found for step, group_id in trained if step == newest for found in self._group(group_id, step)]
        valued = [(found.credit.advantage, found) for found in episodes if found.credit.advantage is not None]
        return [found for _, found in sorted(valued, key=lambda pair: -pair[0])]

    def _group(self, group_id: str, step: int) -> list[TrainedEpisode]:
        group = self._journal.read_group(group_id)
        baseline = str(self._stage.get("baseline", "leave_one_out"))
        by_id = {episode.episode_id: values for episode, values in credited(self._as_trained(group), baseline=baseline)}
        return [TrainedEpisode(episode, _credit(by_id.get(episode.episode_id), step)) for episode in group.episodes]

    def _as_trained(self, group: Group) -> Group:
        """With the rewards that training saw: the control arm of shuffled rewards deals them out anew."""
        if self._stage.get("shuffle_rewards", False):
            return shuffle_rewards([group], seed=self._seed)[0]
        return group

    def _why_not_consumed(self, episode: Episode) -> str:
        if episode.group_id.startswith(("heldout.", "rollout")):
            return "an evaluation"
        if self._stage.get("method") == "rejection_sampling":
            return "rejection sampling imitates whole conversations that succeeded"
        return "its group was not consumed by a step"


def _credit(advantages: tuple[float, ...] | None, step: int) -> Credit:
    if advantages is None:
        return Credit(None, (), "episode failed")
    return Credit(step, advantages, None) if advantages else Credit(None, (), "it has no completion")
