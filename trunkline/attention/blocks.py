"""Exact attention over a prefix forest on CPU: one causal square per node, one rectangle per branching node. Owns the kernel calls.

For a node [s, e) with descendants [e, t), the visible pairs are exactly the disjoint union of

    square     queries [s, e) x keys [s, e), causal
    rectangle  queries [e, t) x keys [s, e), full, if t > e

so no masked pair is computed. Each block yields (O_b, L_b), L the row log-sum-exp; blocks over the same queries merge by
L = logaddexp(L_a, L_b), O = O_a + sigmoid(L_b - L_a) (O_b - O_a), in any order. Backward, the only row-global quantities
are L and <dO, O>: a block's flash backward that is handed the *merged* O and L returns that block's exact share, and the
shares add up (the identity of ring attention, arXiv 2310.01889).
"""

# T forest tokens, H query heads, K key/value heads (H % K == 0), D head_dim, P slots of the padded squares, B squares, W width

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trunkline.attention.forest import Forest, Ints

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
    """Attend over the tokens of one forest, in forest order; exact, differentiable, on CPU.

    >>> hidden_TC = decoder(token_ids_T, positions_T, ForestAttend(forest))
    """

    def __init__(self, forest: Forest) -> None:
        self._plan = _plan(forest)

    def __call__(self, layer: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        """See Attend; keeps nothing per layer."""
        out_THD: Tensor = _BlockAttention.apply(q_THD, k_TKD, v_TKD, self._plan)
        return out_THD


def _plan(forest: Forest) -> _Plan:
    start_U, end_U, subtree_U = forest.node_start_U, forest.node_end_U, forest.node_subtree_end_U
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
    def forward(ctx: torch.autograd.function.FunctionCtx, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, plan: _Plan) -> Tensor:
        out_THD, lse_TH = _squares_forward(plan.squares, q_THD, k_TKD, v_TKD)
        for s, e, t in plan.rectangles:
            part_THD, part_TH = _forward_one(q_THD[e:t], k_TKD[s:e], v_TKD[s:e])
            lse_view = lse_TH[e:t]
            out_THD[e:t].lerp_(part_THD.to(out_THD.dtype), torch.sigmoid(part_TH - lse_view).unsqueeze(-1))
            torch.logaddexp(lse_view, part_TH, out=lse_view)
        out_THD = out_THD.to(q_THD.dtype)
        ctx.save_for_backward(q_THD, k_TKD, v_TKD, out_THD, lse_TH)
        ctx.plan = plan  # type: ignore[attr-defined]
        return out_THD

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad_THD: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q_THD, k_TKD, v_TKD, out_THD, lse_TH = ctx.saved_tensors  # type: ignore[attr-defined]
        plan: _Plan = ctx.plan  # type: ignore[attr-defined]
        grad_THD = grad_THD.contiguous()
        dq_THD, dk_TKD, dv_TKD = _squares_backward(plan.squares, grad_THD, (q_THD, k_TKD, v_TKD), out_THD, lse_TH)
        for s, e, t in plan.rectangles:
            dq, dk, dv = _flash_backward(
                _one(grad_THD[e:t]),
                _one(q_THD[e:t]),
                _one(k_TKD[s:e]),
                _one(v_TKD[s:e]),
                _one(out_THD[e:t]),
                lse_TH[e:t].transpose(0, 1).unsqueeze(0),
                0.0,
                False,
            )
            dq_THD[e:t] += dq[0].transpose(0, 1)
            dk_TKD[s:e] += dk[0].transpose(0, 1)
            dv_TKD[s:e] += dv[0].transpose(0, 1)
        return dq_THD, dk_TKD, dv_TKD, None


def _one(x_THD: Tensor) -> Tensor:
    return x_THD.transpose(0, 1).unsqueeze(0)


def _forward_one(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> tuple[Tensor, Tensor]:
    out_1HTD, lse_1HT = _flash_forward(_one(q_THD), _one(k_TKD), _one(v_TKD))
    return out_1HTD[0].transpose(0, 1), lse_1HT[0].transpose(0, 1)


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
