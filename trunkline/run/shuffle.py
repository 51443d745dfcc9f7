"""The shuffled-reward control: RL with everything but true credit. Owns the shuffle alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from trunkline.types import Group


def shuffle_rewards(groups: Sequence[Group], *, seed: int) -> tuple[Group, ...]:
    """Each group's rewards, dealt out anew to its valid attempts; the same for the same seed and group."""
    return tuple(_shuffled(group, random.Random(f"{seed}/shuffle/{group.group_id}")) for group in groups)


def _shuffled(group: Group, rng: random.Random) -> Group:
    valid = [index for index, episode in enumerate(group.episodes) if episode.reward is not None]
    episodes = list(group.episodes)
    for index, source in zip(valid, rng.sample(valid, len(valid)), strict=True):
        episodes[index] = replace(episodes[index], rewards=group.episodes[source].rewards)
    return replace(group, episodes=tuple(episodes))
