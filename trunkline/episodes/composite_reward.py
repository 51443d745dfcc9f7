"""What an attempt earns in all: its verdict, faults on the way, speed. Owns the sum; the parts are measured elsewhere.

r = verdict - alpha * severity of faults + beta * h(T / T_base)        (MiniMax-M2, Eq. 7; the last for successes alone)
"""

from __future__ import annotations

from collections.abc import Sequence

from trunkline.episodes.config import RewardsConfig
from trunkline.episodes.process_rewards import process_rewards
from trunkline.episodes.virtual_clock import completion_time, latencies
from trunkline.types import Completion, Episode, MessageNode, Reward, ToolSpec

SPEED = "speed"
_PROCESS = "process."
_SUCCESS = 1.0


def component_rewards(
    config: RewardsConfig,
    verdict: Sequence[Reward],
    completions: Sequence[Completion],
    messages: Sequence[MessageNode],
    specs: Sequence[ToolSpec],
) -> tuple[Reward, ...]:
    """What is added to a verdict, each already weighted: 'process.*' at its completion, 'speed' for the whole attempt."""
    rewards: tuple[Reward, ...] = ()
    if config.process:
        rewards += process_rewards(completions, messages, weight=config.process)
    if config.speed and sum(reward.value for reward in verdict) >= _SUCCESS:
        seconds = completion_time(completions, messages, tool_s=latencies(specs), seconds_per_token=config.seconds_per_token)
        pace = pace_of(seconds / config.base_s)
        evidence = f"{seconds:.3f} s on the virtual clock, base {config.base_s:g} s: {pace:.3f} x {config.speed:g}"
        rewards += (Reward(SPEED, config.speed * pace, evidence),)
    return rewards


def pace_of(relative_time: float) -> float:
    """h(x) = 1 / (1 + x^2): 1 for no time, 1/2 at the base and steepest near it; it falls everywhere, so that attempts always differ."""
    return 1.0 / (1.0 + relative_time**2)


def verdict_of(episode: Episode) -> float | None:
    """What its verifier alone gave an episode; None if it failed. Success is read from this, whatever else is rewarded."""
    if episode.reward is None:
        return None
    return sum(reward.value for reward in episode.rewards if not is_component(reward))


def is_component(reward: Reward) -> bool:
    """True for what `component_rewards` added."""
    return reward.name == SPEED or reward.name.startswith(_PROCESS)
