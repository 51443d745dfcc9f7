"""Truncated importance correction: weights for tokens whose sampler was not quite the trainer's policy. Owns the weights; pure."""

# T trained tokens, in any order

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Correction:
    """What each token's loss is to be multiplied by."""

    weight_T: Tensor
    """min(p(trainer) / p(sampler), cap), without gradient."""
    stats: Mapping[str, float]
    """The gap between the two, for the record."""


def truncated_correction(anchor_logp_T: Tensor, recorded_logp_T: Tensor, *, cap: float) -> Correction:
    """min(exp(anchor - recorded), cap), from log-probabilities by the trainer's weights and as recorded at sampling (TIS).

    The gap holds all that parts the two: other kernels, other precision, other experts, and staleness. `correction_kl` is the k3
    estimate of KL(sampler || trainer), mean of exp(gap) - 1 - gap: never negative, in nats a token.
    """
    gap_T = anchor_logp_T.detach() - recorded_logp_T
    ratio_T = gap_T.exp()
    weight_T = ratio_T.clamp(max=cap)
    stats = {
        "correction_weight_mean": weight_T.mean(),
        "correction_truncated_fraction": (ratio_T > cap).to(gap_T.dtype).mean(),
        "correction_kl": (ratio_T - 1 - gap_T).mean(),
        "mean_abs_logprob_gap": gap_T.abs().mean(),
        "max_abs_logprob_gap": gap_T.abs().max(),
    }
    return Correction(weight_T, {name: value.item() for name, value in stats.items()})
