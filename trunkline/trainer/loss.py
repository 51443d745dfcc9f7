"""What an RL objective returns. Owns the form; the choice is objective.py's, and each formula is a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class LossSum:
    """What an RL objective returns."""

    total: Tensor
    """Scalar sum over tokens, to be divided by the step's trained tokens."""
    stats: Mapping[str, float] = field(default_factory=dict)
    """Numbers for the record, without gradient."""
