"""Attention over a tree layout on CUDA through torch's FlexAttention. Owns which blocks its kernel visits; no N x N mask anywhere.

Each key is visible to an interval of queries, [k, subtree_end(k)) for a local key and all of them for an ancestor's. So a
block of 128 keys against a block of 128 queries is *empty* if no interval touches it (skipped), *full* if all 128 intervals
cover it (computed without a mask), else *partial* (the mask is evaluated inside the kernel). Both counts follow from where
the intervals begin and end, for all query blocks at once.

FlexAttention has no backward on CPU in torch 2.13; there the forward alone runs, unfused, for tests.
"""

# T local tokens, A ancestor keys, Q padded queries, B padded keys (ancestors, then local), X query blocks, Y key blocks,
# H query heads, K key/value heads (H % K == 0), D head_dim

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from trunkline.attention.forest import Forest, Ints
from trunkline.attention.layout import TreeLayout
from trunkline.errors import TrainerError

BLOCK = 128  # tokens a side, the default of torch's kernels

# A dimension of one block is compiled apart from all others (dynamo specialises sizes 0 and 1), so there are at least two.
_LEAST_BLOCKS = 2


class QueriesOfKeys(NamedTuple):
    """The visibility rule with padding: key b is visible to query q iff first_B[b] <= q < end_B[b]."""

    first_B: Ints
    """First query that sees each key."""
    end_B: Ints
    """One past the last; padding keys are seen by none."""
    num_queries: int
    """Q, a multiple of BLOCK."""


def queries_of_keys(layout: TreeLayout) -> QueriesOfKeys:
    """Intervals of the A ancestors, the T local tokens and the padding.

    Padding queries see the ancestors and the last token, so that no row of the softmax is empty; nothing reads them, and no
    gradient enters them.
    """
    num_tokens, num_ancestors = layout.num_tokens, layout.num_ancestors
    num_queries, num_keys = _padded(num_tokens), _padded(num_ancestors + num_tokens)
    first_B, end_B = np.zeros(num_keys, dtype=np.int64), np.zeros(num_keys, dtype=np.int64)
    end_B[:num_ancestors] = num_queries
    local = slice(num_ancestors, num_ancestors + num_tokens)
    first_B[local] = np.arange(num_tokens)
    end_B[local] = np.repeat(layout.node_subtree_end_U, layout.node_end_U - layout.node_start_U)
    end_B[local.stop - 1] = num_queries
    return QueriesOfKeys(first_B, end_B, num_queries)


def visible_blocks(keys: QueriesOfKeys) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(is_partial_XY, is_full_XY) of query block x and key block y; neither where no pair is visible."""
    shape = (keys.num_queries // BLOCK, len(keys.first_B) // BLOCK)
    touched_XY = _count_keys(shape, keys.first_B // BLOCK, -(-keys.end_B // BLOCK))
    covered_XY = _count_keys(shape, -(-keys.first_B // BLOCK), keys.end_B // BLOCK)
    is_full_XY = covered_XY == BLOCK
    return (touched_XY > 0) & ~is_full_XY, is_full_XY


class FlexForestAttend:
    """TreeAttend on CUDA; exact and differentiable. Its blocks are found once, for all layers and for forward and backward."""

    def __init__(self, layout: TreeLayout | Forest, device: torch.device | str) -> None:
        self._mask = block_mask(layout if isinstance(layout, TreeLayout) else TreeLayout.of(layout), torch.device(device))

    def __call__(
        self,
        layer: int,
        q_THD: Tensor,
        k_TKD: Tensor,
        v_TKD: Tensor,
        ancestor_k_AKD: Tensor | None = None,
        ancestor_v_AKD: Tensor | None = None,
    ) -> Tensor:
        """See TreeAttend; `layer` is not used. Raises TrainerError where torch has no backward, on CPU with gradients."""
        k_BKD = k_TKD if ancestor_k_AKD is None else torch.cat((ancestor_k_AKD, k_TKD))
        v_BKD = v_TKD if ancestor_v_AKD is None else torch.cat((ancestor_v_AKD, v_TKD))
        if q_THD.device.type == "cpu" and torch.is_grad_enabled() and any(x.requires_grad for x in (q_THD, k_BKD, v_BKD)):
            raise TrainerError("FlexAttention has no backward on CPU; train there with attention.blocks.ForestAttend")
        num_queries, num_keys = self._mask.seq_lengths
        q_1HQD = _heads_first(q_THD, num_queries)
        k_1KBD, v_1KBD = _heads_first(k_BKD, num_keys), _heads_first(v_BKD, num_keys)
        is_grouped = q_THD.shape[1] != k_TKD.shape[1]
        out_1HQD = _kernel(q_THD.device.type)(q_1HQD, k_1KBD, v_1KBD, block_mask=self._mask, enable_gqa=is_grouped)
        return out_1HQD[0, :, : len(q_THD)].transpose(0, 1)


def block_mask(layout: TreeLayout, device: torch.device) -> BlockMask:
    """torch's form of visible_blocks, on `device`."""
    keys = queries_of_keys(layout)
    first_B, end_B = (torch.from_numpy(bound_B).to(device, torch.int32) for bound_B in (keys.first_B, keys.end_B))

    def is_visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (first_B[key] <= query) & (query < end_B[key])

    partial, full = (_listed(is_kind_XY, device) for is_kind_XY in visible_blocks(keys))
    lengths = (keys.num_queries, len(keys.first_B))
    return BlockMask.from_kv_blocks(*partial, *full, BLOCK_SIZE=BLOCK, mask_mod=is_visible, seq_lengths=lengths)


def _padded(size: int) -> int:
    return max(_LEAST_BLOCKS, -(-size // BLOCK)) * BLOCK


def _count_keys(shape: tuple[int, int], first_B: Ints, end_B: Ints) -> Ints:
    """count_XY: keys of block y whose interval of query blocks [first, end) holds x; an interval that ends before it begins is empty."""
    num_rows, num_columns = shape
    column_B = np.arange(len(first_B)) // BLOCK
    end_B = np.maximum(first_B, end_B)
    size = (num_rows + 1) * num_columns
    starts, ends = (np.bincount(row_B * num_columns + column_B, minlength=size) for row_B in (first_B, end_B))
    return (starts - ends).reshape(num_rows + 1, num_columns).cumsum(axis=0)[:num_rows]


def _listed(is_kind_XY: NDArray[np.bool_], device: torch.device) -> tuple[Tensor, Tensor]:
    """(number a row, columns with those first) as torch wants them: int32, with a batch and a head dimension of 1."""
    columns_XY = np.argsort(~is_kind_XY, axis=1, kind="stable")
    count_11X, columns_11XY = (torch.from_numpy(x[None, None]).to(device, torch.int32) for x in (is_kind_XY.sum(axis=1), columns_XY))
    return count_11X, columns_11XY


def _heads_first(x_THD: Tensor, size: int) -> Tensor:
    """x_1HSD, zeros after the T tokens."""
    return F.pad(x_THD.transpose(0, 1), (0, 0, 0, size - len(x_THD))).unsqueeze(0)


@cache
def _kernel(device_type: str) -> Callable[..., Tensor]:
    """One for all layouts of the process: lengths become symbols at their first change, and masks are captured tensors.

    fullgraph: beyond dynamo's limit of recompilations it fails, rather than fall back unseen to an unfused H x Q x B matrix.
    """
    if device_type == "cuda":
        return torch.compile(flex_attention, fullgraph=True)
    return flex_attention
