"""Supervised fine-tuning: weighted negative log-likelihood. Owns the formula; pure."""

# T tokens with a loss weight, in any order

from __future__ import annotations

from torch import Tensor


def sft_loss(logp_T: Tensor, weight_T: Tensor) -> Tensor:
    """-(w * logp).sum() / w.sum(), a scalar; the weights must not sum to 0."""
    return -(weight_T * logp_T).sum() / weight_T.sum()
