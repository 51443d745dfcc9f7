"""Advantages of a group's attempts from their rewards. Owns the baselines, by short name; pure numpy."""

# G valid episodes of a group, T completions of one of them

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trunkline.errors import ConfigError

Floats = NDArray[np.float64]
Baseline = Callable[[Floats, float], tuple[Floats, float]]
"""(whole returns, most that was earned before any step) -> (advantage of each whole return, what a unit of reward is worth in it)."""

_STD_FLOOR = 1e-6


def leave_one_out(returns_G: Floats) -> Floats:
    """Return minus the mean of the other attempts: unbiased, and equal to G/(G-1) (r - mean). Needs G >= 2."""
    return (returns_G - returns_G.mean()) * (len(returns_G) / (len(returns_G) - 1))


def group_normalised(returns_G: Floats, *, least_spread: float = 0.0) -> Floats:
    """(r - mean) / (spread + 1e-6): the population's std (GRPO, MiniMax-M1), or `least_spread` if that is more. Needs G >= 2."""
    return (returns_G - returns_G.mean()) / (_spread(returns_G, least_spread) + _STD_FLOOR)


# Attempts that earn the same in different steps have a spread of 0: what a step earned must not be divided by that.
BASELINES: Mapping[str, Baseline] = {
    "leave_one_out": lambda returns_G, earned: (leave_one_out(returns_G), 1.0),
    "group_normalised": lambda returns_G, earned: (
        group_normalised(returns_G, least_spread=earned),
        1.0 / (_spread(returns_G, earned) + _STD_FLOOR),
    ),
}


def advantages(returns_G: Sequence[float], earned_before_GT: Sequence[Sequence[float]], *, baseline: str) -> list[Floats]:
    """One advantage per completion: its reward-to-go less the baseline of its episode (MiniMax-M2, Eq. 4).

    A_it = sum of r_p over p >= t, minus B_i. The reward-to-go is the whole return less what was earned before t, so that the
    baseline compares whole returns once, and an episode without rewards of single steps has one advantage throughout.

    Args:
        returns_G: all that each valid episode earned.
        earned_before_GT: for each completion of each of them, what earlier completions earned.
        baseline: a short name.

    Raises:
        ConfigError: no baseline has this short name.
        ValueError: fewer than two returns, for a lone attempt has nothing to be compared with.
    """
    if baseline not in BASELINES:
        raise ConfigError(f"baseline must be one of {', '.join(BASELINES)}, got {baseline!r}")
    if len(returns_G) < 2:
        raise ValueError(f"an advantage compares attempts: a group needs two valid ones, got {len(returns_G)}")
    largest = max((abs(earned) for steps in earned_before_GT for earned in steps), default=0.0)
    whole_G, unit = BASELINES[baseline](np.asarray(returns_G, dtype=np.float64), largest)
    return [whole - unit * np.asarray(steps, dtype=np.float64) for whole, steps in zip(whole_G, earned_before_GT, strict=True)]


def _spread(returns_G: Floats, least: float) -> float:
    return max(float(returns_G.std()), least)
