"""Keeps the experts of a sparse decoder evenly loaded. Owns the update of the selection bias and the measure of uneven load.

Auxiliary-loss-free balancing (arXiv 2408.15664): a bias that takes part in the choice of experts only, never in their weights,
moves by a fixed step against each expert's load. No gradient, no loss term.
"""

# L layers, E experts

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trunkline.models.decoder import Decoder


class LoadViolation(NamedTuple):
    """MaxVio (arXiv 2408.15664): how far a layer's busiest expert lies above the mean load; 0 is even, E/K - 1 the worst."""

    mean: float
    """Over the layers."""
    worst: float
    """Of the least even layer."""


@torch.no_grad()
def update_bias_(decoder: Decoder, counts_LE: Tensor, rate: float) -> None:
    """bias += rate * sign(mean count - count) in every layer of a sparse decoder; nothing in a dense one. The paper's rate is 1e-3.

    `counts_LE` are the tokens that each expert of each layer got in the step, over the samples one by one.
    """
    if not decoder.config.is_sparse:
        return
    for layer, counts_E in zip(decoder.model.layers, counts_LE, strict=True):
        bias_E = layer.get_buffer("block_sparse_moe.e_score_correction_bias")
        bias_E += rate * (counts_E.mean() - counts_E).sign().to(bias_E)


def load_violation(counts_LE: Tensor) -> LoadViolation:
    """Of the tokens each expert of each layer got; a layer that got none counts as even."""
    mean_L = counts_LE.mean(dim=1)
    violation_L = torch.where(mean_L > 0, counts_LE.amax(dim=1) / mean_L - 1, 0.0)
    return LoadViolation(violation_L.mean().item(), violation_L.max().item())
