"""Knobs of the optimiser and the losses. Owns their defaults and checks; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

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


LossName = Literal["cispo", "ppo", "gspo", "importance_sampling"]

# The knobs that each loss honours, with its defaults: GSPO's ratio is a mean over a sequence, so its interval is a thousand times narrower.
_KNOBS: Mapping[str, Mapping[str, float | None]] = {
    "cispo": {"is_weight_cap": 5.0},
    "ppo": {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": None, "correction_cap": None},
    "gspo": {"clip_low": 3e-4, "clip_high": 4e-4, "correction_cap": None},
    "importance_sampling": {},
}


class LossConfig(_Section):
    """The RL objective, by short name. A knob that the chosen loss does not honour is an error. `LossConfig(name="ppo", clip_high=0.3)`."""

    name: LossName = Field(
        default="cispo",
        description="cispo: the capped importance weight times the policy gradient; ppo: clipped on each token (GRPO's loss); "
        "gspo: clipped on each completion; importance_sampling: without a bound.",
    )
    is_weight_cap: float | None = Field(
        default=None, gt=0, description="cispo: absolute upper bound of a token's importance weight (not 1 + epsilon); 5 by default."
    )
    clip_low: float | None = Field(
        default=None, gt=0, le=1, description="ppo, gspo: the ratio is clipped below 1 - clip_low; 0.2 and 3e-4 by default."
    )
    clip_high: float | None = Field(
        default=None, gt=0, description="ppo, gspo: the ratio is clipped above 1 + clip_high; 0.28 (DAPO) and 4e-4 by default."
    )
    dual_clip: float | None = Field(
        default=None, gt=1, description="ppo: absolute bound of the ratio where the advantage is negative; none by default."
    )
    correction_cap: float | None = Field(
        default=None,
        gt=0,
        description="ppo, gspo: the ratio is taken against the trainer's own log-probabilities, and each token's loss is multiplied by "
        "trainer's over sampler's probability, this at most (2 is usual); by default the ratio is against the sampler's.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        """Completes the knobs of the chosen loss, so that a resolved recipe shows them, and refuses those of others."""
        name = given.get("name", "cispo") if isinstance(given, Mapping) else None
        if not isinstance(name, str) or name not in _KNOBS:
            return given
        honoured = _KNOBS[name]
        chosen = {knob: value for knob, value in given.items() if value is not None}
        if "correction_cap" in chosen and "correction_cap" not in honoured:
            raise ValueError(
                f"loss {name!r} with correction_cap={chosen['correction_cap']} counts the gap between sampler and trainer twice: its ratio "
                "is taken against the recorded log-probabilities already; leave correction_cap out, or choose ppo or gspo"
            )
        for knob in (knob for knob in chosen if knob in cls.model_fields and knob not in ("name", *honoured)):
            known = ", ".join(honoured) or "no knobs"
            raise ValueError(f"loss {name!r} does not honour {knob}={chosen[knob]}; it has {known}; leave it out")
        return {**honoured, **chosen}

    @property
    def formula_knobs(self) -> dict[str, float]:
        """What the formula takes by keyword."""
        knobs = {knob: getattr(self, knob) for knob in _KNOBS[self.name] if knob != "correction_cap"}
        return {knob: value for knob, value in knobs.items() if value is not None}


class PhaseConfig(_Section):
    """What the trainer does from now on, under a fresh optimiser."""

    kind: PhaseKind = Field(description="supervised: demonstrations; rl: samples with advantages.")
    optimizer: OptimizerConfig = Field(default=OptimizerConfig(), description="A fresh AdamW.")
    loss: LossConfig = Field(default=LossConfig(), description="The RL objective; not read in a supervised phase.")


class TrainerConfig(_Section):
    """The trainer's process: where and how a step is computed, whatever it trains."""

    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where the model is trained.")
    compute_dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="bfloat16: forward and backward in it, with weights, head, router, sums and optimiser in fp32. On cpu float32 agrees "
        "with the sampler to 5e-5.",
    )
    partitions: bool = Field(
        default=True,
        description="A forest that does not fit into memory is computed in partitions, with the same gradient; false: it is an error.",
    )
    partition_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Forest tokens whose activations are alive at once; by default as many as half of the free memory holds.",
    )
    checkpoint_layers: bool = Field(
        default=False, description="Keep each layer's input only and compute the layer again in the backward pass: less memory, more time."
    )
    replay: Literal["sampled", "all", "off"] = Field(
        default="sampled",
        description="Sparse models: tokens go to the experts that they went to when they were sampled. all: prompts too, by their first "
        "record; off: the trainer's own router chooses.",
    )
    balance_rate: float = Field(
        default=1e-3, ge=0, description="Sparse models: what a step moves the selection bias of each expert by, against its load."
    )
