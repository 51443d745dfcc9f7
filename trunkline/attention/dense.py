"""Attention over a tree layout by the visibility rule as a dense mask: T x (A + T) memory. Owns the oracle, and short CUDA passes."""

# T local tokens, A ancestor keys, B = A + T keys, H query heads, K key/value heads (H % K == 0), D head_dim

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trunkline.attention.forest import Forest
from trunkline.attention.layout import TreeLayout


def visibility_TB(layout: TreeLayout | Forest, device: torch.device | str = "cpu") -> Tensor:
    """mask[q, b]: ancestor keys (b < A) are visible to all queries, local key k = b - A iff k <= q < subtree_end(k)."""
    layout = layout if isinstance(layout, TreeLayout) else TreeLayout.of(layout)
    index_T = torch.arange(layout.num_tokens, device=device)
    subtree_end_T = torch.from_numpy(np.repeat(layout.node_subtree_end_U, layout.node_end_U - layout.node_start_U)).to(device)
    local_TT = (index_T[None, :] <= index_T[:, None]) & (index_T[:, None] < subtree_end_T[None, :])
    return F.pad(local_TT, (layout.num_ancestors, 0), value=True)


_ALIGNED = 16  # keys; rows of other lengths would be copied at every call


class DenseAttend:
    """TreeAttend through stock scaled_dot_product_attention with the mask spelled out; any device and dtype."""

    def __init__(self, layout: TreeLayout | Forest, device: torch.device | str = "cpu") -> None:
        self._visible_TB = visibility_TB(layout, device)
        self._scores: dict[torch.dtype, Tensor] = {}

    def __call__(
        self,
        layer: int,
        q_THD: Tensor,
        k_TKD: Tensor,
        v_TKD: Tensor,
        ancestor_k_AKD: Tensor | None = None,
        ancestor_v_AKD: Tensor | None = None,
    ) -> Tensor:
        """See TreeAttend; `layer` is not used."""
        k_BKD = k_TKD if ancestor_k_AKD is None else torch.cat((ancestor_k_AKD, k_TKD))
        v_BKD = v_TKD if ancestor_v_AKD is None else torch.cat((ancestor_v_AKD, v_TKD))
        # Of the fused CUDA kernels that take a mask, the one for fp32 knows no grouped heads: torch would keep H x T x B scores.
        group = q_THD.shape[1] // k_TKD.shape[1]
        k_BHD, v_BHD = (x.repeat_interleave(group, dim=1) if group > 1 else x for x in (k_BKD, v_BKD))
        q_1HTD, k_1HBD, v_1HBD = (x.transpose(0, 1).unsqueeze(0) for x in (q_THD, k_BHD, v_BHD))
        out_1HTD = F.scaled_dot_product_attention(q_1HTD, k_1HBD, v_1HBD, attn_mask=self._mask_TB(q_THD.dtype))
        return out_1HTD.squeeze(0).transpose(0, 1)

    def _mask_TB(self, dtype: torch.dtype) -> Tensor:
        """On CUDA what is added to the scores: out of booleans torch would make that in every layer, and keep it for each."""
        if not self._visible_TB.is_cuda:
            return self._visible_TB
        if dtype not in self._scores:
            num_queries, num_keys = self._visible_TB.shape
            padded_TB = torch.zeros(num_queries, -(-num_keys // _ALIGNED) * _ALIGNED, dtype=dtype, device=self._visible_TB.device)
            self._scores[dtype] = padded_TB[:, :num_keys].masked_fill_(~self._visible_TB, -torch.inf)
        return self._scores[dtype]
