"""Advantages of a group's attempts from their rewards. Owns the baselines, by short name; pure numpy."""

# G valid episodes of a group

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trunkline.errors import ConfigError

Floats = NDArray[np.float64]
Baseline = Callable[[Floats], Floats]

_STD_FLOOR = 1e-6


def leave_one_out(rewards_G: Floats) -> Floats:
    """Reward minus the mean of the other attempts: unbiased, and equal to G/(G-1) (r - mean). Needs G >= 2."""
    return (rewards_G - rewards_G.mean()) * (len(rewards_G) / (len(rewards_G) - 1))


def group_normalised(rewards_G: Floats) -> Floats:
    """(r - mean) / (std + 1e-6), the population's std (GRPO, MiniMax-M1). Needs G >= 2."""
    return (rewards_G - rewards_G.mean()) / (rewards_G.std() + _STD_FLOOR)


BASELINES: Mapping[str, Baseline] = {"leave_one_out": leave_one_out, "group_normalised": group_normalised}


def advantages(rewards_G: Sequence[float], *, baseline: str) -> Floats:
    """One advantage per valid episode of a group.

    Raises:
        ConfigError: no baseline has this short name.
        ValueError: fewer than two rewards, for a lone attempt has nothing to be compared with.
    """
    if baseline not in BASELINES:
        raise ConfigError(f"baseline must be one of {', '.join(BASELINES)}, got {baseline!r}")
    if len(rewards_G) < 2:
        raise ValueError(f"an advantage compares attempts: a group needs two valid ones, got {len(rewards_G)}")
    return BASELINES[baseline](np.asarray(rewards_G, dtype=np.float64))
