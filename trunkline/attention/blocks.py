"""Exact attention over a prefix forest on CPU: one causal square per node, one rectangle per branching node. Owns the kernel calls.

For a node [s, e) with descendants [e, t), the visible pairs are exactly the disjoint union of

    square     queries [s, e) x keys [s, e), causal
    rectangle  queries [e, t) x keys [s, e), full, if t > e

so no masked pair is computed. Ancestors outside the layout are one more rectangle, of all its queries. Each block yields
(O_b, L_b), L the row log-sum-exp; blocks over the same queries merge, in any order, by

    L = logaddexp(L_a, L_b)        O = O_a + sigmoid(L_b - L_a) (O_b - O_a)

Backward, the only row-global quantities are L and <dO, O>: a block's flash backward that is handed the *merged* O and L
returns that block's exact share, and the shares add up (the identity of ring attention, arXiv 2310.01889).
"""

# T tokens of the layout, A ancestors outside it, H query heads, K key/value heads (H % K == 0), D head_dim, S keys of a rectangle,
# P slots of the padded squares, B squares, W width

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trunkline.attention.forest import Forest, Ints
from trunkline.attention.layout import TreeLayout

_flash_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default

# Squares of nearby sizes share one call, padded to the widest: a call costs as much as a square of about 20 tokens.
_WIDTH_RATIO = 1.2
_LARGEST_PADDED_WIDTH = 256


@dataclass(frozen=True)
class _Squares:
    """All causal squares, laid out in P padded slots so that squares of one width are one batched call."""

    token_of_slot_P: Tensor
    """Which token a slot holds; at padding, any token of the same square."""
    padding: Tensor
    """The slots that are padding."""
    slot_of_token_T: Tensor
    """Where each token's slot is."""
    batches: tuple[tuple[int, int, int], ...]
    """(first slot, number of squares, width) of each call."""

    def batched(self, x_PHD: Tensor) -> Iterator[Tensor]:
        """The slots of each call as x_BHWD (or x_BHW), without a copy."""
        for first, count, width in self.batches:
            yield x_PHD[first : first + count * width].unflatten(0, (count, width)).transpose(1, 2)


@dataclass(frozen=True)
class _Plan:
    """The calls that one layer makes, the same for every layer and for forward and backward."""

    squares: _Squares
    """One a node."""
    rectangles: tuple[tuple[int, int, int], ...]
    """(s, e, t) of each node that branches."""


class ForestAttend:
    """The TreeAttend of one layout (or whole forest), tokens in its order; exact, differentiable, on CPU.

    >>> hidden_TC = decoder(token_ids_T, positions_T, ForestAttend(forest))
    """

    def __init__(self, layout: TreeLayout | Forest) -> None:
        self._plan = _plan(layout)

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
        out_THD: Tensor = _BlockAttention.apply(q_THD, k_TKD, v_TKD, ancestor_k_AKD, ancestor_v_AKD, self._plan)
        return out_THD


def _plan(layout: TreeLayout | Forest) -> _Plan:
    start_U, end_U, subtree_U = layout.node_start_U, layout.node_end_U, layout.node_subtree_end_U
    inner = subtree_U > end_U
    rectangles = np.stack((start_U[inner], end_U[inner], subtree_U[inner]), axis=1)
    return _Plan(_lay_out_squares(start_U, end_U - start_U), tuple((s, e, t) for s, e, t in rectangles.tolist()))


def _lay_out_squares(start_U: Ints, size_U: Ints) -> _Squares:
    rung_U = np.ceil(np.log(size_U) / np.log(_WIDTH_RATIO) - 1e-9).astype(np.int64)
    large = size_U > _LARGEST_PADDED_WIDTH
    rung_U[large] = size_U[large] + _LARGEST_PADDED_WIDTH  # each size its own rung: padding would cost more than a call
    tokens, paddings, batches = [], [], []
    num_slots = 0
    for rung in np.unique(rung_U):
        nodes = np.flatnonzero(rung_U == rung)
        offset_1W = np.arange(size_U[nodes].max())[None]
        is_padding_BW = offset_1W >= size_U[nodes, None]
        token_BW = start_U[nodes, None] + np.where(is_padding_BW, 0, offset_1W)
        batches.append((num_slots, *token_BW.shape))
        tokens.append(token_BW.ravel())
        paddings.append(is_padding_BW.ravel())
        num_slots += token_BW.size
    token_P, is_padding_P = np.concatenate(tokens), np.concatenate(paddings)
    slot_T = np.empty(int(size_U.sum()), dtype=np.int64)
    slot_T[token_P[~is_padding_P]] = np.flatnonzero(~is_padding_P)
    padding = np.flatnonzero(is_padding_P)
    return _Squares(torch.from_numpy(token_P), torch.from_numpy(padding), torch.from_numpy(slot_T), tuple(batches))


class _BlockAttention(torch.autograd.Function):
    """All blocks of one layer as one node of the autograd graph, so that the merge costs no graph."""

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
        out_THD, lse_TH = _squares_forward(plan.squares, q_THD, k_TKD, v_TKD)
        for s, e, t in plan.rectangles:
            _merge_rectangle(out_THD[e:t], lse_TH[e:t], q_THD[e:t], k_TKD[s:e], v_TKD[s:e])
        if ancestor_k_AKD is not None and ancestor_v_AKD is not None:
            _merge_rectangle(out_THD, lse_TH, q_THD, ancestor_k_AKD, ancestor_v_AKD)
        out_THD = out_THD.to(q_THD.dtype)
        ctx.save_for_backward(q_THD, k_TKD, v_TKD, ancestor_k_AKD, ancestor_v_AKD, out_THD, lse_TH)  # type: ignore[arg-type]  # None is fine
        ctx.plan = plan  # type: ignore[attr-defined]
        return out_THD

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad_THD: Tensor) -> tuple[Tensor | None, ...]:
        q_THD, k_TKD, v_TKD, ancestor_k_AKD, ancestor_v_AKD, out_THD, lse_TH = ctx.saved_tensors  # type: ignore[attr-defined]
        plan: _Plan = ctx.plan  # type: ignore[attr-defined]
        grad_THD = grad_THD.contiguous()
        dq_THD, dk_TKD, dv_TKD = _squares_backward(plan.squares, grad_THD, (q_THD, k_TKD, v_TKD), out_THD, lse_TH)
        for s, e, t in plan.rectangles:
            dq, dk, dv = _rectangle_backward(grad_THD[e:t], q_THD[e:t], k_TKD[s:e], v_TKD[s:e], out_THD[e:t], lse_TH[e:t])
            dq_THD[e:t] += dq
            dk_TKD[s:e] += dk
            dv_TKD[s:e] += dv
        if ancestor_k_AKD is None:
            return dq_THD, dk_TKD, dv_TKD, None, None, None
        dq, ancestor_dk, ancestor_dv = _rectangle_backward(grad_THD, q_THD, ancestor_k_AKD, ancestor_v_AKD, out_THD, lse_TH)
        return dq_THD.add_(dq), dk_TKD, dv_TKD, ancestor_dk, ancestor_dv, None


def _one(x_THD: Tensor) -> Tensor:
    return x_THD.transpose(0, 1).unsqueeze(0)


def _merge_rectangle(out_THD: Tensor, lse_TH: Tensor, q_THD: Tensor, k_SKD: Tensor, v_SKD: Tensor) -> None:
    """Adds keys that all these queries see to their output and log-sum-exp, in place."""
    part_1HTD, part_1HT = _flash_forward(_one(q_THD), _one(k_SKD), _one(v_SKD))
    part_THD, part_TH = part_1HTD[0].transpose(0, 1), part_1HT[0].transpose(0, 1)
    out_THD.lerp_(part_THD.to(out_THD.dtype), torch.sigmoid(part_TH - lse_TH).unsqueeze(-1))
    torch.logaddexp(lse_TH, part_TH, out=lse_TH)


def _rectangle_backward(grad_THD: Tensor, q_THD: Tensor, k_SKD: Tensor, v_SKD: Tensor, out_THD: Tensor, lse_TH: Tensor) -> list[Tensor]:
    """One rectangle's shares of dq, dk, dv, given the merged output and log-sum-exp."""
    inputs = [_one(x) for x in (grad_THD, q_THD, k_SKD, v_SKD, out_THD)]
    return [d[0].transpose(0, 1) for d in _flash_backward(*inputs, lse_TH.transpose(0, 1).unsqueeze(0), 0.0, False)]


def _squares_forward(squares: _Squares, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> tuple[Tensor, Tensor]:
    """Output, in the accumulator's precision, and log-sum-exp of the squares alone: every token is a query of exactly one."""
    slots = (x.index_select(0, squares.token_of_slot_P) for x in (q_THD, k_TKD, v_TKD))
    outs, lses = [], []
    for q_BHWD, k_BKWD, v_BKWD in zip(*map(squares.batched, slots), strict=True):
        out_BHWD, lse_BHW = _flash_forward(q_BHWD, k_BKWD, v_BKWD, 0.0, True)
        outs.append(out_BHWD.transpose(1, 2).flatten(0, 1))
        lses.append(lse_BHW.transpose(1, 2).flatten(0, 1))
    lse_TH = torch.cat(lses).index_select(0, squares.slot_of_token_T)
    return torch.cat(outs).index_select(0, squares.slot_of_token_T).to(lse_TH.dtype), lse_TH


def _squares_backward(
    squares: _Squares, grad_THD: Tensor, qkv: tuple[Tensor, Tensor, Tensor], out_THD: Tensor, lse_TH: Tensor
) -> list[Tensor]:
    """The squares' shares of dq, dk, dv, given the merged output and log-sum-exp."""
    slots = [x.index_select(0, squares.token_of_slot_P) for x in (grad_THD, *qkv, out_THD, lse_TH)]
    # Padding is no query: no gradient enters it, and an infinite log-sum-exp makes its probabilities 0 rather than
    # whatever overflows. As a key it is seen by padding alone, for it comes last in its causal square.
    slots[0].index_fill_(0, squares.padding, 0.0)
    slots[-1].index_fill_(0, squares.padding, torch.inf)
    shares = [_flash_backward(*call, 0.0, True) for call in zip(*map(squares.batched, slots), strict=True)]
    return [
        torch.cat([d.transpose(1, 2).flatten(0, 1) for d in parts]).index_select(0, squares.slot_of_token_T)
        for parts in zip(*shares, strict=True)
    ]
