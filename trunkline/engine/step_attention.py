"""Attention of one engine step: the new tokens of many sequences against their cached keys. Owns the calls; not the cache.

What several rows share (trunks.py) they see in one call, as queries of one matrix against keys that are read once; what is a row's
own, in calls over rows of similar shape. A token's parts merge exactly by their log-sum-exps, as in attention/blocks.py.
"""

# T new tokens of the step, B rows (sequences), R rows of one call, Q queries a row (padded), L keys a row (padded)
# H query heads, K key/value heads, D head_dim

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trunkline.engine.kv_cache import KvCache
from trunkline.engine.slots import Ints
from trunkline.engine.trunks import Indices, Trunk, find_trunks

_flash_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default

_MAX_CALL_SCORES = 2**22  # R * Q * L of a call, so that its mask stays small (a single long row may pass it)
_MAX_TRUNK_KEYS = 2**12  # R * L of a call over trunks: small ones share a call, a large one is its own
_DECODE_CALL_ROWS = 32  # the gathered keys of a call stay in the L2 cache: 43k tokens per CPU-second, 33k with 256


@dataclass(frozen=True)
class Call:
    """One attention call of a layer: R rows of queries, each against its keys."""

    tokens_RQ: Tensor
    """Index in the step's flat tokens; a shorter row repeats its last token, which then gets the same value twice."""
    keys_RL: Tensor | slice
    """Slots of a row's keys; what lies beyond its length is any valid slot. A slice if R is 1 and the slots are consecutive."""
    bias_R1QL: Tensor | None
    """0 where the query sees the key, else -inf (Q may be 1 for all queries alike); None if each sees all."""
    is_causal: bool = False
    """Query i sees the first i + 1 keys (Q = L); bias_R1QL is None then."""


@dataclass(frozen=True)
class StepAttend:
    """An Attend for one forward pass: writes the step's keys and values, then lets each row see its own slots.

    Everything is written before anything is read, so rows that share a prefix computed in this very step see it.
    """

    cache: KvCache
    """Read and written."""
    slots_T: Tensor
    """Where the new tokens' keys and values go."""
    own: tuple[Call, ...]
    """What is a row's own: each new token is a query of exactly one call."""
    shared: tuple[Call, ...]
    """What rows share; a token is a query of any number of these."""

    def __call__(self, layer: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        """See Attend."""
        self.cache.write(layer, self.slots_T, k_TKD, v_TKD)
        out_THD = torch.empty_like(q_THD, memory_format=torch.contiguous_format)
        lse_TH1 = out_THD.new_empty((*q_THD.shape[:2], 1), dtype=torch.promote_types(q_THD.dtype, torch.float32))
        for call in self.own:
            flat, part_PHD, part_PH1 = self._attend(layer, call, q_THD)
            out_THD.index_copy_(0, flat, part_PHD)
            if self.shared:
                lse_TH1.index_copy_(0, flat, part_PH1)
        for call in self.shared:
            flat, part_PHD, part_PH1 = self._attend(layer, call, q_THD)
            lse_PH1 = lse_TH1.index_select(0, flat)
            weight_PH1 = torch.sigmoid(part_PH1 - lse_PH1).to(out_THD.dtype)
            out_THD.index_copy_(0, flat, out_THD.index_select(0, flat).lerp_(part_PHD, weight_PH1))
            lse_TH1.index_copy_(0, flat, torch.logaddexp(lse_PH1, part_PH1))
        return out_THD

    def _attend(self, layer: int, call: Call, q_THD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The call's queries as flat tokens, their outputs and log-sum-exps."""
        flat = call.tokens_RQ.reshape(-1)
        q_RHQD = q_THD.index_select(0, flat).view(*call.tokens_RQ.shape, *q_THD.shape[1:]).transpose(1, 2)
        k_RKLD, v_RKLD = self.cache.read(layer, call.keys_RL)
        out_RHQD, lse_RHQ = _flash_forward(q_RHQD, k_RKLD, v_RKLD, 0.0, call.is_causal, attn_mask=call.bias_R1QL)
        return flat, out_RHQD.transpose(1, 2).flatten(0, 1), lse_RHQ.transpose(1, 2).flatten(0, 1).unsqueeze(-1)


def plan_attention(cache: KvCache, slots_T: Tensor, *, start_B: Ints, count_B: Ints, length_B: Ints, slots_BL: Ints) -> StepAttend:
    """The calls of a step, with little padding and each shared key read once.

    Args:
        cache: where the keys are.
        slots_T: where the new tokens' keys and values go.
        start_B: each row's first token in the step's flat tokens.
        count_B: how many new tokens each row has, at least 1.
        length_B: how many keys its last new token sees, itself included.
        slots_BL: their slots; row b is valid up to length_B[b].
    """
    dtype = cache.hidden_NC.dtype
    trunks, covered_B = find_trunks(slots_BL, length_B - count_B)
    own_B = length_B - covered_B
    own = tuple(
        _own_call(start_B[rows], count_B[rows], own_B[rows], _keys(slots_BL, rows, covered_B[rows], own_B[rows]), dtype)
        for rows in _similar_rows(count_B, own_B)
    )
    shared = tuple(_shared_call(together, start_B, count_B, slots_BL, dtype) for together in _similar_trunks(trunks))
    return StepAttend(cache, slots_T, own, shared)


def _own_call(start_R: Ints, count_R: Ints, length_R: Ints, keys_RL: Ints, dtype: torch.dtype) -> Call:
    """A row's last new token sees all of its `length_R` keys, each earlier one a key less."""
    offset_RQ = np.minimum(np.arange(count_R.max()), count_R[:, None] - 1)
    tokens_RQ = torch.from_numpy(start_R[:, None] + offset_RQ)
    if len(count_R) == 1 and count_R[0] == length_R[0]:
        return Call(tokens_RQ, _consecutive(keys_RL), None, is_causal=bool(count_R[0] > 1))
    position_RQ = (length_R - count_R)[:, None] + offset_RQ
    return Call(tokens_RQ, _consecutive(keys_RL), _bias(np.arange(keys_RL.shape[1]) > position_RQ[:, :, None], dtype))


def _shared_call(trunks: Sequence[Trunk], start_B: Ints, count_B: Ints, slots_BL: Ints, dtype: torch.dtype) -> Call:
    """Every new token of a trunk's rows sees all of its keys."""
    tokens = [np.concatenate([np.arange(start_B[row], start_B[row] + count_B[row]) for row in trunk.rows_R]) for trunk in trunks]
    num_queries = max(map(len, tokens))
    tokens_RQ = np.stack([np.pad(tokens_Q, (0, num_queries - len(tokens_Q)), mode="edge") for tokens_Q in tokens])
    first_R = np.array([trunk.start for trunk in trunks])
    length_R = np.array([trunk.end for trunk in trunks]) - first_R
    keys_RL = _keys(slots_BL, np.array([trunk.rows_R[0] for trunk in trunks]), first_R, length_R)
    return Call(torch.from_numpy(tokens_RQ), _consecutive(keys_RL), _bias(np.arange(keys_RL.shape[1]) >= length_R[:, None, None], dtype))


def _keys(slots_BL: Ints, rows_R: Indices, first_R: Ints, length_R: Ints) -> Ints:
    """slots_RL of the keys from `first_R` on; a shorter row repeats its last."""
    return slots_BL[rows_R[:, None], first_R[:, None] + np.minimum(np.arange(length_R.max()), length_R[:, None] - 1)]


def _consecutive(keys_RL: Ints) -> Tensor | slice:
    """As a slice where that is possible: such keys are read where they lie."""
    if len(keys_RL) == 1 and (np.diff(keys_RL[0]) == 1).all():
        return slice(int(keys_RL[0, 0]), int(keys_RL[0, -1]) + 1)
    return torch.from_numpy(keys_RL)


def _bias(is_hidden_RQL: np.ndarray, dtype: torch.dtype) -> Tensor | None:
    if not is_hidden_RQL.any():
        return None
    return torch.from_numpy(np.where(is_hidden_RQL, np.float32(-np.inf), np.float32(0))).unsqueeze(1).to(dtype)


def _similar_trunks(trunks: Sequence[Trunk]) -> Iterator[list[Trunk]]:
    """Trunks for each call, padded to the largest: of one level, for a token may be a query of a call once, and of similar size."""
    together: list[Trunk] = []
    for trunk in sorted(trunks, key=lambda one: (one.level, len(one.rows_R), one.end - one.start)):
        longest = max(one.end - one.start for one in (*together, trunk))
        if together and (trunk.level != together[0].level or (len(together) + 1) * longest > _MAX_TRUNK_KEYS):
            yield together
            together = []
        together.append(trunk)
    if together:
        yield together


def _similar_rows(count_B: Ints, length_B: Ints) -> Iterator[Indices]:
    """Row indices of each call: decoding rows by length in equal parts, then the others by growing count."""
    order = np.lexsort((length_B, count_B))
    num_decoding = int(np.count_nonzero(count_B == 1))
    if num_decoding:
        yield from np.array_split(order[:num_decoding], -(-num_decoding // _DECODE_CALL_ROWS))
    first = num_decoding
    while first < len(order):
        last, longest = first, 0
        while last < len(order):
            count, longest = int(count_B[order[last]]), max(longest, int(length_B[order[last]]))
            is_too_uneven = count > 2 * count_B[order[first]]
            if last > first and (is_too_uneven or (last + 1 - first) * count * longest > _MAX_CALL_SCORES):
                break
            last += 1
        yield order[first:last]
        first = last
