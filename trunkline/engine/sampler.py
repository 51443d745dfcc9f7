"""Logits to sampled tokens and their log-probabilities, the whole batch at once. Owns the distribution; not when to stop."""

# N rows, U contexts, D distributions, V vocabulary

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trunkline.engine.slots import Ints

Floats = NDArray[np.float64]
Seeds = NDArray[np.uint64]


@dataclass(frozen=True)
class Sampled:
    """One token a row."""

    token_ids_N: Ints
    """The tokens."""
    logprobs_N: Floats
    """log p under the distribution sampled from; 0 where greedy."""


def sample(logits_UV: Tensor, *, context_N: Ints, temperature_N: Floats, top_p_N: Floats, seed_N: Seeds, position_N: Ints) -> Sampled:
    """Inverse transform sampling in float64, with one uniform number per (seed, position).

    Row n samples after context `context_N[n]`; rows of one context, temperature and top-p share their distribution.

    So a token depends on its row's logits, seed and position in the completion alone, never on the batch around it.
    Temperature 0 is greedy. `top_p_N` keeps the most likely tokens up to and including the one that reaches that mass.
    """
    distinct_D3, row_N = np.unique(np.stack((context_N, temperature_N, top_p_N), axis=1), axis=0, return_inverse=True)
    context_D, temperature_D, top_p_D = distinct_D3.T
    logits_DV = logits_UV.double()
    if not np.array_equal(context_D, np.arange(len(logits_UV))):
        logits_DV = logits_DV[torch.from_numpy(context_D.astype(np.int64))]
    is_greedy_D = temperature_D == 0
    if not (temperature_D == 1).all():
        logits_DV = logits_DV / torch.from_numpy(np.where(is_greedy_D, 1.0, temperature_D)).unsqueeze(1)
    relative_DV = logits_DV - logits_DV.amax(-1, keepdim=True)  # log-probabilities but for a constant: normalised where picked
    restricted = torch.from_numpy(np.flatnonzero(top_p_D < 1))
    if len(restricted):
        relative_DV[restricted] = _nucleus(relative_DV[restricted].log_softmax(-1), torch.from_numpy(top_p_D)[restricted])
    row_of_N = torch.from_numpy(row_N.reshape(-1))
    cdf_DV = relative_DV.exp().cumsum_(-1)
    token_ids_N1 = _invert_cdf(cdf_DV, row_of_N, torch.from_numpy(uniform(seed_N, position_N)))
    is_greedy_N = temperature_N == 0
    if is_greedy_N.any():
        token_ids_N1 = torch.where(torch.from_numpy(is_greedy_N)[:, None], logits_DV.argmax(-1, keepdim=True)[row_of_N], token_ids_N1)
    picked_N = (relative_DV[row_of_N, token_ids_N1.squeeze(1)] - cdf_DV[row_of_N, -1].log()).numpy()
    return Sampled(token_ids_N1.squeeze(1).numpy(), np.where(is_greedy_N & np.isfinite(picked_N), 0.0, picked_N))


def uniform(seed_N: Seeds, position_N: Ints) -> Floats:
    """Numbers in [0, 1) by counter: two rounds of the SplitMix64 finaliser (Steele, Lea, Flood 2014) over seed and position."""
    mixed_N = _mix(_mix(seed_N) + position_N.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return (mixed_N >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x_N: Seeds) -> Seeds:
    x_N = x_N + np.uint64(0x9E3779B97F4A7C15)
    x_N = (x_N ^ (x_N >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x_N = (x_N ^ (x_N >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x_N ^ (x_N >> np.uint64(31))


def _invert_cdf(cdf_DV: Tensor, row_N: Tensor, uniform_N: Tensor) -> Tensor:
    """token_ids_N1: the first token of the row's distribution whose cumulative probability passes uniform x total."""
    total_D1 = cdf_DV[:, -1:].contiguous()
    # Rounding can carry uniform x total to the total itself; the last token of positive probability is meant then.
    last_D1 = torch.searchsorted(cdf_DV, total_D1).clamp_(max=cdf_DV.shape[1] - 1)
    cdf_NV = cdf_DV if torch.equal(row_N, torch.arange(len(cdf_DV))) else cdf_DV[row_N]
    token_ids_N1 = torch.searchsorted(cdf_NV, uniform_N[:, None] * total_D1[row_N], right=True)
    return torch.minimum(token_ids_N1, last_D1[row_N])


def _nucleus(logprobs_NV: Tensor, top_p_N: Tensor) -> Tensor:
    """Renormalised logprobs_NV of the smallest set of most likely tokens whose mass reaches top_p; -inf elsewhere."""
    sorted_NV, order_NV = logprobs_NV.sort(dim=-1, descending=True, stable=True)
    probs_NV = sorted_NV.exp()
    mass_before_NV = probs_NV.cumsum(-1) - probs_NV
    is_kept_NV = mass_before_NV < top_p_N[:, None]
    is_kept_NV[:, 0] = True
    kept_NV = torch.full_like(logprobs_NV, -torch.inf).scatter_(1, order_NV, sorted_NV.masked_fill(~is_kept_NV, -torch.inf))
    return kept_NV - kept_NV.logsumexp(-1, keepdim=True)
