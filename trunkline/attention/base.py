"""The seam between a decoder and its attention. Owns the protocols and the oracle; no layout, no cache, no kernel."""

# T tokens (flat, no batch dimension), A ancestors outside them, H query heads, K key/value heads (H % K == 0), D head_dim

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor


class Attend(Protocol):
    """Decides which of the flat tokens see which; may keep state per layer (a KV cache, detached leaves).

    The softmax scale is D**-0.5. Query head h reads key/value head h // (H // K). The smallest example is CausalAttend:

    >>> hidden_TC = decoder(token_ids_T, torch.arange(len(token_ids_T)), CausalAttend())
    """

    def __call__(self, layer: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        """Rotated queries and keys, and values, of `layer` (0-based); returns out_THD in the dtype of q."""
        ...


class TreeAttend(Protocol):
    """An Attend over one TreeLayout: its tokens see each other as the tree says, and all of them see all the ancestors."""

    def __call__(
        self,
        layer: int,
        q_THD: Tensor,
        k_TKD: Tensor,
        v_TKD: Tensor,
        ancestor_k_AKD: Tensor | None = None,
        ancestor_v_AKD: Tensor | None = None,
    ) -> Tensor:
        """See Attend. The ancestors' keys and values are autograd inputs like the others; None iff the layout has no ancestors."""
        ...


class CausalAttend:
    """All tokens are one sequence; each sees itself and those before it. The oracle for every other Attend."""

    def __call__(self, layer: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        """See Attend; `layer` is not used."""
        # A batch of one: without that dimension torch takes its slow path, which builds the T x T matrix.
        q_1HTD, k_1KTD, v_1KTD = (x.transpose(0, 1).unsqueeze(0) for x in (q_THD, k_TKD, v_TKD))
        is_grouped = q_THD.shape[1] != k_TKD.shape[1]
        out_1HTD = F.scaled_dot_product_attention(q_1HTD, k_1KTD, v_1KTD, is_causal=True, enable_gqa=is_grouped)
        return out_1HTD.squeeze(0).transpose(0, 1)
