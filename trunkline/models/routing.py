"""The seam between a sparse decoder and who decides where tokens go. Owns the Route protocol and the plain choice; no weights."""

# T tokens (flat, no batch dimension), L layers, E experts, K experts a token

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Route(Protocol):
    """Decides which experts each of the flat tokens goes to; may record its choice, or replay a recorded one.

    The weights of the chosen experts are the router's scores, renormalised, so that gradients reach the gate whoever chose.

    >>> hidden_TC = decoder(token_ids_T, positions_T, attend, TopK())
    """

    def __call__(self, layer: int, preference_TE: Tensor, top_k: int) -> Tensor:
        """experts_TK (int64, distinct in a row, in any order) of `layer` (0-based), from score plus selection bias (detached)."""
        ...


class TopK:
    """The experts that the router prefers, as at inference."""

    def __call__(self, layer: int, preference_TE: Tensor, top_k: int) -> Tensor:
        """See Route; `layer` is not used."""
        return preference_TE.topk(top_k, dim=-1, sorted=False).indices


class Recording:
    """The router's own choice, kept: `experts_TLK` (uint16) is complete when all layers of a forward pass have asked."""

    def __init__(self, num_tokens: int, num_layers: int, top_k: int) -> None:
        self.experts_TLK = torch.zeros((num_tokens, num_layers, top_k), dtype=torch.uint16)

    def __call__(self, layer: int, preference_TE: Tensor, top_k: int) -> Tensor:
        """See Route."""
        experts_TK = TopK()(layer, preference_TE, top_k)
        self.experts_TLK[:, layer] = experts_TK
        return experts_TK
