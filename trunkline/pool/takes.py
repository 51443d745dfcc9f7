"""What the pool hands out: one step's groups, and its counts. Owns no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trunkline.types import Group


@dataclass(frozen=True)
class StepTake:
    """What one optimiser step is made of."""

    groups: tuple[Group, ...]
    """P groups with gradient, in order of consumption."""
    degenerate: tuple[Group, ...]
    """Groups without gradient that were consumed since the take before."""
    wait_s: float
    """Seconds that next_step() waited."""
    ages: tuple[int, ...]
    """For each group: policy step that the training starts from, minus the oldest that sampled a token of it."""
    num_stalls: int
    """Times since the take before that a group with gradient waited outside the window while none inside could be taken."""


@dataclass(frozen=True)
class PoolStats:
    """Counts since the pool was made."""

    num_submitted: int
    """Groups admitted."""
    num_trained: int
    """Groups handed out by next_step()."""
    num_degenerate: int
    """Groups consumed without gradient."""
    num_failed: int
    """Attempts masked from their group's baseline, after all retries."""
    num_retried: int
    """Times that an attempt was run again."""
    num_deadline: int
    """Attempts that ran out of time or budget (trained with what they earned)."""
    num_running_episodes: int
    """Attempts running now; at most B * G."""
    max_bypass: int
    """The most younger groups that were consumed before one group; at most W - 1."""
    ages: Mapping[int, int]
    """Age in policy steps -> number of groups trained at it."""
