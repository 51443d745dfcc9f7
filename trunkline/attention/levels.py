"""Attention over a tree layout on CUDA by torch's flash kernels, in half precision. Owns the calls; what they mean is blocks.py's.

Squares and rectangles are those of blocks.py. All squares are one call over sequences of different lengths. Nodes that branch
are sorted by how many such nodes lie above them: those of one level have neither queries nor keys in common, so that their
rectangles are one call, too. Ancestors outside the layout are one more. So a layer makes 1 + levels calls, and what it masks
is the squares' own causal half.
"""

# T local tokens, A ancestor keys, S keys of a level, Q queries of a level, H query heads, K key/value heads (H % K == 0),
# D head_dim, U nodes, N sequences of a call, N1 = N + 1

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from trunkline.attention.dense import DenseAttend
from trunkline.attention.flex import FlexForestAttend
from trunkline.attention.forest import Forest, Ints
from trunkline.attention.layout import TreeLayout

_forward = torch.ops.aten._flash_attention_forward.default
_backward = torch.ops.aten._flash_attention_backward.default

_MOST_HEAD_DIM = 256
_HEAD_DIM_STEP = 8

Place = slice | Tensor
"""Tokens of a call: a run, or their indices."""


@dataclass(frozen=True)
class _Call:
    """Sequences of queries and of the keys that they see."""

    query: Place
    """The queries of all, end to end."""
    key: Place
    """The keys of all, end to end."""
    query_ends_N1: Tensor
    """Where each sequence's queries begin, and where the last ones end (int32)."""
    key_ends_N1: Tensor
    """The same of keys."""
    most_queries: int
    """Of one sequence."""
    most_keys: int
    """Of one sequence."""


@dataclass(frozen=True)
class _Plan:
    """The calls of a layer, the same for all layers, forward and backward."""

    squares: _Call
    """Causal."""
    rectangles: tuple[_Call, ...]
    """One a level, from the roots down."""
    ancestors: _Call | None
    """All queries, all ancestors."""


class LevelForestAttend:
    """TreeAttend on CUDA for bf16 and fp16; exact up to their rounding, and differentiable."""

    def __init__(self, layout: TreeLayout | Forest, device: torch.device | str) -> None:
        self._layout, self._device = layout if isinstance(layout, TreeLayout) else TreeLayout.of(layout), torch.device(device)
        self._plan = _plan(self._layout, self._device)

    def __call__(
        self,
        layer: int,
        q_THD: Tensor,
        k_TKD: Tensor,
        v_TKD: Tensor,
        ancestor_k_AKD: Tensor | None = None,
        ancestor_v_AKD: Tensor | None = None,
    ) -> Tensor:
        """See TreeAttend; keeps nothing per layer."""
        if q_THD.shape[-1] > _MOST_HEAD_DIM or q_THD.shape[-1] % _HEAD_DIM_STEP:
            other = self._dense if q_THD.shape[-1] > _MOST_HEAD_DIM else self._flex
            return other(layer, q_THD, k_TKD, v_TKD, ancestor_k_AKD, ancestor_v_AKD)
        out_THD: Tensor = _LevelAttention.apply(q_THD, k_TKD, v_TKD, ancestor_k_AKD, ancestor_v_AKD, self._plan)
        return out_THD

    @cached_property
    def _flex(self) -> FlexForestAttend:
        """For heads of widths that the flash kernels do not know."""
        return FlexForestAttend(self._layout, self._device)

    @cached_property
    def _dense(self) -> DenseAttend:
        """For heads too wide for any other kernel."""
        return DenseAttend(self._layout, self._device)


def levels_of(layout: TreeLayout) -> list[Ints]:
    """The nodes that branch, by how many that branch lie above them; ascending in each level."""
    level_U = np.full(len(layout.node_start_U), -1)
    open_ends: list[int] = []
    for node, (start, end, subtree_end) in enumerate(
        zip(layout.node_start_U.tolist(), layout.node_end_U.tolist(), layout.node_subtree_end_U.tolist(), strict=True)
    ):
        while open_ends and open_ends[-1] <= start:
            open_ends.pop()
        if subtree_end > end:
            level_U[node] = len(open_ends)
            open_ends.append(subtree_end)
    return [np.flatnonzero(level_U == level) for level in range(int(level_U.max(initial=-1)) + 1)]


def _plan(layout: TreeLayout, device: torch.device) -> _Plan:
    start_U, end_U, subtree_U = layout.node_start_U, layout.node_end_U, layout.node_subtree_end_U
    rectangles = (_call((end_U[nodes], subtree_U[nodes]), (start_U[nodes], end_U[nodes]), device) for nodes in levels_of(layout))
    ancestors = None
    if layout.num_ancestors:
        one = np.zeros(1, np.int64)
        ancestors = _call((one, one + layout.num_tokens), (one, one + layout.num_ancestors), device)
    return _Plan(_call((start_U, end_U), (start_U, end_U), device), tuple(rectangles), ancestors)


def _call(queries: tuple[Ints, Ints], keys: tuple[Ints, Ints], device: torch.device) -> _Call:
    """Of runs [first, end) of queries, each seeing a run of keys."""
    sizes = [end - first for first, end in (queries, keys)]
    query_ends, key_ends = (torch.from_numpy(np.concatenate(([0], np.cumsum(size)))).to(device, torch.int32) for size in sizes)
    most_queries, most_keys = (int(size.max()) for size in sizes)
    return _Call(_place(*queries, device), _place(*keys, device), query_ends, key_ends, most_queries, most_keys)


def _place(first: Ints, end: Ints, device: torch.device) -> Place:
    if (first[1:] == end[:-1]).all():
        return slice(int(first[0]), int(end[-1]))
    size = end - first
    return torch.from_numpy(np.arange(size.sum()) + np.repeat(first - (np.cumsum(size) - size), size)).to(device)


class _LevelAttention(torch.autograd.Function):
    """All calls of one layer as one node of the autograd graph."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        q_THD: Tensor,
        k_TKD: Tensor,
        v_TKD: Tensor,
        ancestor_k_AKD: Tensor | None,
        ancestor_v_AKD: Tensor | None,
        plan: _Plan,
    ) -> Tensor:
        out_THD, lse_HT = _attend(plan.squares, q_THD, k_TKD, v_TKD, is_causal=True)
        others = [(call, k_TKD, v_TKD) for call in plan.rectangles]
        if plan.ancestors is not None:
            assert ancestor_k_AKD is not None and ancestor_v_AKD is not None, "a layout with ancestors needs their keys and values"
            others.append((plan.ancestors, ancestor_k_AKD, ancestor_v_AKD))
        if others:
            sum_THD = out_THD.float()
            for call, k, v in others:
                _merge(call, sum_THD, lse_HT, *_attend(call, q_THD, k, v))
            out_THD = sum_THD.to(q_THD.dtype)
        ctx.save_for_backward(q_THD, k_TKD, v_TKD, ancestor_k_AKD, ancestor_v_AKD, out_THD, lse_HT)  # type: ignore[arg-type]  # None is fine
        ctx.plan = plan  # type: ignore[attr-defined]
        return out_THD

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad_THD: Tensor) -> tuple[Tensor | None, ...]:
        q_THD, k_TKD, v_TKD, ancestor_k_AKD, ancestor_v_AKD, out_THD, lse_HT = ctx.saved_tensors  # type: ignore[attr-defined]
        plan: _Plan = ctx.plan  # type: ignore[attr-defined]
        rows = grad_THD.contiguous(), q_THD, out_THD, lse_HT
        dq_THD, dk_TKD, dv_TKD = _share(plan.squares, rows, k_TKD, v_TKD, is_causal=True)
        if not plan.rectangles and plan.ancestors is None:
            return dq_THD, dk_TKD, dv_TKD, None, None, None
        # A query has a share from each level, a key only two: its square's and its rectangle's.
        sum_THD = dq_THD.float()
        for call in plan.rectangles:
            dq, dk, dv = _share(call, rows, k_TKD, v_TKD)
            _add(sum_THD, call.query, dq)
            _add(dk_TKD, call.key, dk)
            _add(dv_TKD, call.key, dv)
        ancestor_dk = ancestor_dv = None
        if plan.ancestors is not None:
            dq, ancestor_dk, ancestor_dv = _share(plan.ancestors, rows, ancestor_k_AKD, ancestor_v_AKD)
            sum_THD += dq
        return sum_THD.to(q_THD.dtype), dk_TKD, dv_TKD, ancestor_dk, ancestor_dv, None


def _attend(call: _Call, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, *, is_causal: bool = False) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp (H x Q, fp32) of one call."""
    qkv = _take(q_THD, call.query), _take(k_TKD, call.key), _take(v_TKD, call.key)
    out_QHD, lse_HQ, *_ = _forward(*qkv, *_sizes(call), 0.0, is_causal, False)
    return out_QHD, lse_HQ


def _share(call: _Call, rows: tuple[Tensor, ...], k_TKD: Tensor, v_TKD: Tensor, *, is_causal: bool = False) -> tuple[Tensor, ...]:
    """One call's share of dq, dk, dv, given the merged output and log-sum-exp."""
    grad_QHD, q_QHD, out_QHD = (_take(x_THD, call.query) for x_THD in rows[:3])
    lse_HQ = rows[3][:, call.query].contiguous()
    kv = _take(k_TKD, call.key), _take(v_TKD, call.key)
    unused = torch.empty(0, device=q_QHD.device)
    seed = torch.zeros(2, dtype=torch.uint64, device=q_QHD.device)  # of the dropout that there is not
    shares: tuple[Tensor, ...] = _backward(grad_QHD, q_QHD, *kv, out_QHD, lse_HQ, *_sizes(call), 0.0, is_causal, seed, unused)
    return shares


def _sizes(call: _Call) -> tuple[Tensor, Tensor, int, int]:
    return call.query_ends_N1, call.key_ends_N1, call.most_queries, call.most_keys


def _take(x_THD: Tensor, place: Place) -> Tensor:
    return x_THD[place] if isinstance(place, slice) else x_THD.index_select(0, place)


def _merge(call: _Call, out_THD: Tensor, lse_HT: Tensor, part_QHD: Tensor, part_HQ: Tensor) -> None:
    """Adds keys that these queries see to their output and log-sum-exp, in place."""
    out_QHD, lse_HQ = _take(out_THD, call.query), lse_HT[:, call.query]
    out_QHD.lerp_(part_QHD.float(), torch.sigmoid(part_HQ - lse_HQ).t().unsqueeze(-1))
    merged_HQ = torch.logaddexp(lse_HQ, part_HQ)
    if isinstance(call.query, Tensor):
        out_THD.index_copy_(0, call.query, out_QHD)
    lse_HT[:, call.query] = merged_HQ


def _add(sum_THD: Tensor, place: Place, share: Tensor) -> None:
    if isinstance(place, slice):
        sum_THD[place] += share
    else:
        sum_THD.index_add_(0, place, share.to(sum_THD.dtype))
