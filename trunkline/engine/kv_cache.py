"""Keys, values and last hidden states of cached tokens, one row a slot. Owns the tensors; which slot holds what is the prefix tree's."""

# N slots, T tokens, C hidden_size, K key/value heads, D head_dim, W = 2 * K * D (a token's keys, then its values), L keys

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trunkline.models.base import PolicyShape

_DEFAULT_BYTES = 512 * 2**20
_DEFAULT_MAX_SLOTS = 262_144


@dataclass(frozen=True)
class KvCache:
    """One tensor per layer; keys and values of a token lie side by side, so that a read copies one run a token."""

    layers: tuple[Tensor, ...]
    """kv_NW of each layer."""
    hidden_NC: Tensor
    """What the head makes each token's next-token logits of: a context that is cached is sampled from without a forward pass."""
    num_kv_heads: int
    """K."""
    head_dim: int
    """D."""

    @classmethod
    def allocate(cls, config: PolicyShape, *, num_slots: int, dtype: torch.dtype) -> KvCache:
        """Zeros: a masked-out key may lie in a slot never written, and zero weight times NaN is NaN.

        Pages are taken from the system only when they are written.
        """
        shape = (num_slots, 2 * config.num_kv_heads * config.head_dim)
        layers = tuple(torch.zeros(shape, dtype=dtype) for _ in range(config.num_layers))
        hidden_NC = torch.zeros((num_slots, config.hidden_size), dtype=dtype)
        return cls(layers, hidden_NC, config.num_kv_heads, config.head_dim)

    def write(self, layer: int, slots_T: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> None:
        """Stores keys (rotated) and values of T tokens."""
        self.layers[layer].index_copy_(0, slots_T, torch.cat((k_TKD, v_TKD), dim=1).flatten(1))

    def read(self, layer: int, slots_RL: Tensor | slice) -> tuple[Tensor, Tensor]:
        """k_RKLD and v_RKLD of R rows of slots: views of one fresh copy, or of the cache itself for a slice (R = 1)."""
        if isinstance(slots_RL, slice):
            kv_RLW = self.layers[layer][slots_RL].unsqueeze(0)
        else:
            # index_select copies whole rows; advanced indexing is several times slower here.
            kv_RLW = torch.index_select(self.layers[layer], 0, slots_RL.reshape(-1)).unflatten(0, slots_RL.shape)
        k_RLKD, v_RLKD = kv_RLW.unflatten(-1, (2, self.num_kv_heads, self.head_dim)).unbind(2)
        return k_RLKD.transpose(1, 2), v_RLKD.transpose(1, 2)


def default_num_slots(config: PolicyShape, dtype: torch.dtype) -> int:
    """As many as 512 MB hold, at most 262144, and at least one whole context."""
    bytes_a_slot = (config.num_layers * 2 * config.num_kv_heads * config.head_dim + config.hidden_size) * dtype.itemsize
    bytes_a_slot += config.num_layers * config.experts_per_token * np.dtype(np.uint16).itemsize  # route_memory.py; nothing if dense
    return max(config.max_positions, min(_DEFAULT_MAX_SLOTS, _DEFAULT_BYTES // bytes_a_slot))
