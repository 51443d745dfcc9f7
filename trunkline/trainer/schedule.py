"""The learning rate as a pure function of the step. Owns the shape of the curve; no optimiser."""

from __future__ import annotations

from trunkline.errors import ConfigError
from trunkline.trainer.config import OptimizerConfig


def learning_rate(step: int, config: OptimizerConfig) -> float:
    """The rate of optimiser step `step`, counted from 1.

    Rises linearly to `lr` at warmup_steps, then falls linearly to lr * lr_end_fraction at total_steps, and stays there.
    Raises ConfigError if a decay has no end.
    """
    if step <= config.warmup_steps:
        return config.lr * step / config.warmup_steps
    if config.lr_end_fraction == 1.0:
        return config.lr
    if config.total_steps is None:
        raise ConfigError(f"lr_end_fraction {config.lr_end_fraction} needs total_steps: where does the decay end?")
    done = (step - config.warmup_steps) / max(1, config.total_steps - config.warmup_steps)
    return config.lr * (1.0 - (1.0 - config.lr_end_fraction) * min(1.0, done))
