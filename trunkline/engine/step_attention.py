"""Attention of one engine step: the new tokens of many sequences against their cached keys. Owns the grouping; not the cache."""

# T new tokens of the step, B rows (sequences), R rows of one group, Q new tokens a row (padded), L keys a row (padded)
# H query heads, K key/value heads, D head_dim

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from trunkline.engine.kv_cache import KvCache
from trunkline.engine.slots import Ints

_MAX_GROUP_SCORES = 2**22  # R * Q * L of a group, so that its mask stays small (a single long row may pass it)
_DECODE_GROUP_ROWS = 32  # the gathered keys of a group stay in the L2 cache: 43k tokens per CPU-second, 33k with 256


@dataclass(frozen=True)
class RowGroup:
    """Rows of similar shape that one attention call computes."""

    tokens_RQ: Tensor
    """Index in the step's flat tokens; a shorter row repeats its last token, which then gets the same value twice."""
    slots_RL: Tensor
    """Slots of the row's keys, in order of position; what lies beyond a row's length is any valid slot."""
    bias_R1QL: Tensor
    """0 where the key's position is at most the query's, else -inf."""


@dataclass(frozen=True)
class StepAttend:
    """An Attend for one forward pass: writes the step's keys and values, then lets each row see its own slots.

    Everything is written before anything is read, so rows that share a prefix computed in this very step see it.
    """

    cache: KvCache
    """Read and written."""
    slots_T: Tensor
    """Where the new tokens' keys and values go."""
    groups: tuple[RowGroup, ...]
    """Cover all new tokens."""

    def __call__(self, layer: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        """See Attend."""
        self.cache.write(layer, self.slots_T, k_TKD, v_TKD)
        out_THD = torch.empty_like(q_THD)
        is_grouped = q_THD.shape[1] != k_TKD.shape[1]
        for group in self.groups:
            flat = group.tokens_RQ.reshape(-1)
            q_RHQD = q_THD.index_select(0, flat).view(*group.tokens_RQ.shape, *q_THD.shape[1:]).transpose(1, 2)
            k_RKLD, v_RKLD = self.cache.gather(layer, group.slots_RL)
            out_RHQD = F.scaled_dot_product_attention(q_RHQD, k_RKLD, v_RKLD, attn_mask=group.bias_R1QL, enable_gqa=is_grouped)
            out_THD.index_copy_(0, flat, out_RHQD.transpose(1, 2).flatten(0, 1))
        return out_THD


def group_rows(start_B: Ints, count_B: Ints, length_B: Ints, *, slots_BL: Ints, dtype: torch.dtype) -> tuple[RowGroup, ...]:
    """Cuts the rows of a step into groups with little padding.

    Args:
        start_B: each row's first token in the step's flat tokens.
        count_B: how many new tokens each row has, at least 1.
        length_B: how many keys its last new token sees, itself included.
        slots_BL: their slots; row b is valid up to length_B[b].
        dtype: that of the queries.
    """
    return tuple(
        _group(start_B[rows], count_B[rows], length_B[rows], slots_RL=slots_BL[rows, : length_B[rows].max()], dtype=dtype)
        for rows in _similar_rows(count_B, length_B)
    )


def _group(start_R: Ints, count_R: Ints, length_R: Ints, *, slots_RL: Ints, dtype: torch.dtype) -> RowGroup:
    offset_RQ = np.minimum(np.arange(count_R.max()), count_R[:, None] - 1)
    position_RQ = (length_R - count_R)[:, None] + offset_RQ
    is_hidden_RQL = np.arange(slots_RL.shape[1]) > position_RQ[:, :, None]
    bias_RQL = np.where(is_hidden_RQL, np.float32(-np.inf), np.float32(0))
    return RowGroup(
        torch.from_numpy(start_R[:, None] + offset_RQ), torch.from_numpy(slots_RL), torch.from_numpy(bias_RQL).unsqueeze(1).to(dtype)
    )


def _similar_rows(count_B: Ints, length_B: Ints) -> Iterator[NDArray[np.intp]]:
    """Row indices of each group: decoding rows by length in equal parts, then the others by growing count."""
    order = np.lexsort((length_B, count_B))
    num_decoding = int(np.count_nonzero(count_B == 1))
    if num_decoding:
        yield from np.array_split(order[:num_decoding], -(-num_decoding // _DECODE_GROUP_ROWS))
    first = num_decoding
    while first < len(order):
        last, longest = first, 0
        while last < len(order):
            count, longest = int(count_B[order[last]]), max(longest, int(length_B[order[last]]))
            is_too_uneven = count > 2 * count_B[order[first]]
            if last > first and (is_too_uneven or (last + 1 - first) * count * longest > _MAX_GROUP_SCORES):
                break
            last += 1
        yield order[first:last]
        first = last
