"""The FLOP model of a step, for its flat and its forest computation. Owns the formula, not a measurement."""

from __future__ import annotations

import numpy as np

from trunkline.attention.forest import Forest
from trunkline.models.base import Policy

_LINEAR_FLOPS_PER_PARAMETER = 6  # 2 forward, 4 backward
_ATTENTION_FLOPS = 3.5 * 4  # a query-key pair costs 4 per head and dimension forward, and 2.5 times that backward


def flop_ratio(forest: Forest, *, num_parameters: int, attention_width: int, num_layers: int) -> float:
    """FLOPs of each sample computed alone over those of the forest: 1 without shared prefixes.

    Linear cost follows the tokens, attention cost the sum of context lengths: in the forest, of each context once.
    `num_parameters` are those that every token passes (no embedding, no head); `attention_width` is heads x head_dim.
    """
    linear = _LINEAR_FLOPS_PER_PARAMETER * num_parameters
    attention = _ATTENTION_FLOPS * attention_width * num_layers
    context_N = forest.positions_N + 1
    flat = linear * forest.num_flat_tokens + attention * float(context_N[forest.paths_F].sum(dtype=np.float64))
    merged = linear * forest.num_tokens + attention * float(context_N.sum(dtype=np.float64))
    return flat / merged


def parameters_a_token(policy: Policy) -> int:
    """Parameters that every token passes: no embedding, no head, and of stacked experts those that one token goes to."""
    shape = policy.config
    total = 0
    for parameter in policy.parameters():
        if parameter.ndim == 3 and parameter.shape[0] == shape.num_experts:
            total += parameter.numel() // shape.num_experts * shape.experts_per_token
        elif parameter.shape[0] != shape.vocab_size or parameter.shape[1:] != (shape.hidden_size,):
            total += parameter.numel()
    return total
