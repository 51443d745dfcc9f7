"""Attention over a prefix forest by the visibility rule as a dense mask: N x N memory. Owns the oracle; tests only."""

# T forest tokens, H query heads, K key/value heads (H % K == 0), D head_dim

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trunkline.attention.forest import Forest


def visibility_TT(forest: Forest) -> Tensor:
    """mask[q, k]: key k is visible to query q iff k <= q < subtree_end(k)."""
    index_T = torch.arange(forest.num_tokens)
    subtree_end_T = torch.from_numpy(forest.subtree_end_N())
    return (index_T[None, :] <= index_T[:, None]) & (index_T[:, None] < subtree_end_T[None, :])


class DenseAttend:
    """Attend over one forest through stock scaled_dot_product_attention with the mask spelled out."""

    def __init__(self, forest: Forest) -> None:
        self._mask_TT = visibility_TT(forest)

    def __call__(self, layer: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        """See Attend; `layer` is not used."""
        q_HTD, k_KTD, v_KTD = (x.transpose(0, 1) for x in (q_THD, k_TKD, v_TKD))
        gqa = q_THD.shape[1] != k_TKD.shape[1]
        return F.scaled_dot_product_attention(q_HTD, k_KTD, v_KTD, attn_mask=self._mask_TT, enable_gqa=gqa).transpose(0, 1)
