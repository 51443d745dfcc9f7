"""Keys, values and last hidden states of cached tokens, one row a slot. Owns the tensors; which slot holds what is the prefix tree's."""

# N slots, T tokens, C hidden_size, K key/value heads, D head_dim, W = 2 * K * D (a token's keys, then its values), L keys

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trunkline.models.config import DecoderConfig

_DEFAULT_BYTES = 512 * 2**20
_DEFAULT_MAX_SLOTS = 262_144


@dataclass(frozen=True)
class KvCache:
    """One tensor per layer; keys and values of a token lie side by side, so that a gather copies one run a token."""

    layers: tuple[Tensor, ...]
    """kv_NW of each layer."""
    hidden_NC: Tensor
    """What the head makes each token's next-token logits of: a context that is cached is sampled from without a forward pass."""
    num_kv_heads: int
    """K."""
    head_dim: int
    """D."""

    @classmethod
    def allocate(cls, config: DecoderConfig, *, num_slots: int, dtype: torch.dtype) -> KvCache:
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

    def gather(self, layer: int, slots_RL: Tensor) -> tuple[Tensor, Tensor]:
        """k_RKLD and v_RKLD of R rows of slots (views of one fresh copy)."""
        # index_select copies whole rows; advanced indexing is several times slower here.
        kv_NW = torch.index_select(self.layers[layer], 0, slots_RL.reshape(-1))
        kv_RL2KD = kv_NW.view(*slots_RL.shape, 2, self.num_kv_heads, self.head_dim)
        k_RLKD, v_RLKD = kv_RL2KD.unbind(2)
        return k_RLKD.transpose(1, 2), v_RLKD.transpose(1, 2)


def default_num_slots(config: DecoderConfig, dtype: torch.dtype) -> int:
    """As many as 512 MB hold, at most 262144, and at least one whole context."""
    bytes_a_slot = (config.num_layers * 2 * config.num_kv_heads * config.head_dim + config.hidden_size) * dtype.itemsize
    return max(config.max_positions, min(_DEFAULT_MAX_SLOTS, _DEFAULT_BYTES // bytes_a_slot))
