"""Knobs of the optimiser and the losses. Owns their defaults and checks; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PhaseKind = Literal["supervised", "rl"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OptimizerConfig(_Section):
    """AdamW with global-norm clipping, linear warm-up and linear decay. `OptimizerConfig(lr=3e-4, total_steps=100)`."""

    lr: float = Field(default=1e-3, gt=0, description="Peak learning rate, reached after the warm-up.")
    lr_end_fraction: float = Field(
        default=1.0, ge=0, le=1, description="Learning rate at total_steps and after, as a fraction of lr; 1 is constant."
    )
    warmup_steps: int = Field(default=0, ge=0, description="Steps of linear warm-up; the first step already moves.")
    total_steps: int | None = Field(default=None, ge=1, description="Where the decay ends; needed unless lr_end_fraction is 1.")
    betas: tuple[float, float] = Field(default=(0.9, 0.95), description="Decay of AdamW's running mean and of its running square.")
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled decay of matrices; norms and biases are never decayed.")
    clip_norm: float = Field(default=1.0, gt=0, description="Global norm to which larger gradients are scaled down.")

    def for_steps(self, steps: int) -> OptimizerConfig:
        """The same with total_steps filled in where the recipe left it open."""
        return self if self.total_steps is not None else self.model_copy(update={"total_steps": max(1, steps)})


class LossConfig(_Section):
    """The RL objective, by short name."""

    name: Literal["cispo"] = Field(default="cispo", description="cispo: the capped importance weight times the policy gradient.")
    is_weight_cap: float = Field(default=5.0, gt=0, description="Absolute upper bound of a token's importance weight (not 1 + epsilon).")


class PhaseConfig(_Section):
    """What the trainer does from now on, under a fresh optimiser."""

    kind: PhaseKind = Field(description="supervised: demonstrations; rl: samples with advantages.")
    optimizer: OptimizerConfig = Field(default=OptimizerConfig(), description="A fresh AdamW.")
    loss: LossConfig = Field(default=LossConfig(), description="The RL objective; not read in a supervised phase.")
