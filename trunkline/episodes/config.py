"""Knobs of what an attempt earns beside its verdict. Owns their defaults, which ask for nothing."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class RewardsConfig(BaseModel):
    """reward = verdict - process * faults + speed * h(T / base_s), the last for successes alone (MiniMax-M2, Eq. 7)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    process: float = Field(0.0, ge=0, description="alpha: what a completion loses that is at fault throughout; 0 looks for no faults.")
    speed: float = Field(
        0.0, ge=0, description="beta: what a success that takes no time would earn beside its verdict; 0 asks for no speed."
    )
    base_s: float = Field(1.0, gt=0, description="Seconds on the virtual clock at which a success earns half of `speed`.")
    seconds_per_token: float = Field(
        0.02, ge=0, description="What a sampled token takes on the virtual clock; tools declare their own latency."
    )

    @property
    def is_off(self) -> bool:
        """True if attempts earn their verdict alone."""
        return not (self.process or self.speed)
