"""GSPO: the clipped surrogate under one importance ratio a sequence. Owns the ratio; the surrogate is ppo.py's. Pure."""

# T trained tokens, in any order, of S sequences

from __future__ import annotations

import torch
from torch import Tensor

from trunkline.trainer.loss import LossSum
from trunkline.trainer.ppo import clipped_surrogate


def gspo_loss(logp_T: Tensor, old_logp_T: Tensor, advantage_T: Tensor, sample_T: Tensor, *, clip_low: float, clip_high: float) -> LossSum:
    """-min(s A, clip(s, 1 - low, 1 + high) A) of every token, s = exp(mean of logp - old over its sequence), summed over tokens.

    GSPO-token (arXiv 2507.18071): the gradient by logp_T is -s A, or 0 for a sequence that is clipped. `sample_T` (int64,
    >= 0) says which sequence a token belongs to; all trained tokens of a sequence must come in one call, so it is not token-local.

    Normalisation: each token contributes its sequence's term once, so the sum over T tokens divided by T is the mean of the
    sequences' terms *weighted by their lengths*. The paper's eq. 5 weighs sequences alike, and a token then by 1 / length; divide the
    advantages by lengths over the mean length for that. A sequence here is one call of an agent, a tool call of ten tokens beside
    a thought of a thousand: weighed alike, the short ones would take over. So on the policy (s = 1) the gradient is that of every
    other loss of this house, and a learning rate means the same.
    """
    gap_T = logp_T.detach() - old_logp_T
    num_S = torch.bincount(sample_T)
    mean_S = torch.zeros(len(num_S), dtype=gap_T.dtype, device=gap_T.device).index_add(0, sample_T, gap_T) / num_S.clamp(min=1)
    # exp(logp - sg(logp)) is 1: it lets each token's gradient be that of its own log-probability.
    ratio_T = (mean_S[sample_T] + logp_T - logp_T.detach()).exp()
    return clipped_surrogate(ratio_T, advantage_T, clip_low=clip_low, clip_high=clip_high)
