"""PPO's clipped surrogate on single tokens, GRPO's token loss. Owns the formula; pure."""

# T trained tokens, in any order

from __future__ import annotations

import torch
from torch import Tensor

from trunkline.trainer.loss import LossSum


def ppo_loss(
    logp_T: Tensor, old_logp_T: Tensor, advantage_T: Tensor, *, clip_low: float, clip_high: float, dual_clip: float | None = None
) -> LossSum:
    """-min(r A, clip(r, 1 - low, 1 + high) A), r = exp(logp - old), summed over tokens (arXiv 1707.06347, eq. 7).

    The advantage is given, so this is GRPO's loss too (arXiv 2402.03300) and, with low < high, DAPO's (arXiv 2503.14476). The
    gradient by logp_T is -r A, or 0 where r has left the interval in the direction that A pushes. With A < 0 nothing bounds r from
    above; `dual_clip` c > 1 does, and zeroes the gradient where r > c (arXiv 1912.09729).
    """
    ratio_T = (logp_T - old_logp_T).exp()
    return clipped_surrogate(ratio_T, advantage_T, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)


def clipped_surrogate(
    ratio_T: Tensor, advantage_T: Tensor, *, clip_low: float, clip_high: float, dual_clip: float | None = None
) -> LossSum:
    """The same of any ratio; its gradient flows through ratio_T. `clip_fraction` is the share of tokens whose gradient is zeroed."""
    plain_T = ratio_T * advantage_T
    gain_T = torch.minimum(plain_T, ratio_T.clamp(1 - clip_low, 1 + clip_high) * advantage_T)
    if dual_clip is not None:
        gain_T = torch.where(advantage_T < 0, torch.maximum(gain_T, dual_clip * advantage_T), gain_T)
    stats = {
        "is_weight_mean": ratio_T.detach().mean(),
        "is_weight_max": ratio_T.detach().max(),
        "clip_fraction": (gain_T != plain_T).to(ratio_T.dtype).mean(),
    }
    return LossSum(-gain_T.sum(), {name: value.item() for name, value in stats.items()})
