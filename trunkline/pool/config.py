"""Knobs of the pool. Owns their defaults and the sizes that follow from them; schedules nothing."""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field


class WindowConfig(BaseModel):
    """How far ahead episodes are sampled, and how far out of order groups are trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    groups_per_step: int = Field(default=8, ge=1, description="P: groups with gradient that make one optimiser step.")
    max_off_policy_steps: int = Field(default=1, ge=0, description="S: target age in optimiser steps; the buffer holds (S+1)*P groups.")
    window_fraction: float = Field(default=0.3, ge=0, le=1, description="f: share of the buffer that may be taken out of order.")

    @property
    def capacity(self) -> int:
        """B = (S+1) * P slots."""
        return (self.max_off_policy_steps + 1) * self.groups_per_step

    @property
    def window(self) -> int:
        """W = max(1, floor(f * B)) positions, counted from the oldest unconsumed group.

        In decimal, as the recipe writes it: 0.29 of 100 slots is 29, not the 28 of binary floats.
        """
        return max(1, int(Decimal(str(self.window_fraction)) * self.capacity))

    @property
    def max_bypass(self) -> int:
        """W - 1: how many younger groups may be consumed before a group."""
        return self.window - 1

    @property
    def max_age(self) -> int:
        """S + ceil((W-1)/P): no group is older, in optimiser steps, when it is trained (a tight bound).

        With S = 0 a step holds every slot until it is published, so that nothing is in flight then: age 0 whatever the window.
        """
        if self.max_off_policy_steps == 0:
            return 0
        return self.max_off_policy_steps - (-self.max_bypass // self.groups_per_step)


class PoolConfig(BaseModel):
    """Groups and what becomes of failed attempts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group_size: int = Field(default=16, ge=2, description="G: attempts at one task.")
    infra_retries: int = Field(
        default=2, ge=0, description="How often an attempt that failed on our side is run again before it is masked."
    )
    retry_delay_s: float = Field(default=0.5, ge=0, description="Seconds before the first such retry; doubled for each further one.")
    window: WindowConfig = Field(default=WindowConfig(), description="Which groups may be taken, and how many are kept in flight.")
