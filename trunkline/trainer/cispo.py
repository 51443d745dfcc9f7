"""CISPO: the policy gradient under a capped importance weight. Owns the formula; pure."""

# T trained tokens, in any order

from __future__ import annotations

from torch import Tensor

from trunkline.trainer.loss import LossSum


def cispo_loss(logp_T: Tensor, old_logp_T: Tensor, advantage_T: Tensor, *, is_weight_cap: float) -> LossSum:
    """-sg(min(exp(logp - old), cap)) * A * logp, summed over tokens (MiniMax-M2 report, eq. 2-3; MiniMax-M1).

    The cap is absolute and applies to every token, whatever the sign of its advantage; no token's gradient is zeroed, and
    there is no lower bound. The gradient by logp_T is exactly -min(ratio, cap) * A.
    """
    ratio_T = (logp_T.detach() - old_logp_T).exp()
    weight_T = ratio_T.clamp(max=is_weight_cap)
    total = -(weight_T * advantage_T * logp_T).sum()
    stats = {
        "is_weight_mean": weight_T.mean(),
        "is_weight_max": weight_T.max(),
        "clip_fraction": (ratio_T > is_weight_cap).to(weight_T.dtype).mean(),
    }
    return LossSum(total, {name: value.item() for name, value in stats.items()})
