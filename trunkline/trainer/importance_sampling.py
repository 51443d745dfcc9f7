"""Importance sampling without a bound: the policy gradient, unbiased off the policy. Owns the formula; pure."""

# T trained tokens, in any order

from __future__ import annotations

from torch import Tensor

from trunkline.trainer.loss import LossSum


def importance_sampling_loss(logp_T: Tensor, old_logp_T: Tensor, advantage_T: Tensor) -> LossSum:
    """-exp(logp - old) A, summed over tokens; the gradient flows through the ratio, and by logp_T it is -ratio A.

    CISPO without its cap: nothing bounds the variance of old samples.
    """
    ratio_T = (logp_T - old_logp_T).exp()
    stats = {"is_weight_mean": ratio_T.detach().mean(), "is_weight_max": ratio_T.detach().max()}
    return LossSum(-(ratio_T * advantage_T).sum(), {name: value.item() for name, value in stats.items()})
