"""Block attention over a forest equals stock attention under the dense mask, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.attention.base import Attend, CausalAttend
from trunkline.attention.blocks import ForestAttend
from trunkline.attention.dense import DenseAttend
from trunkline.attention.forest import build_forest

torch.set_num_threads(1)  # at these sizes a second thread costs more than it brings, tenfold when cores are contended

HEAD_DIM = 8


def outputs_and_gradients(attend: Attend, qkv: list[torch.Tensor]) -> list[torch.Tensor]:
    leaves = [x.clone().requires_grad_() for x in qkv]
    out_THD = attend(0, *leaves)
    upstream = torch.linspace(-1, 1, out_THD.numel(), dtype=out_THD.dtype).reshape(out_THD.shape)
    return [out_THD.detach(), *torch.autograd.grad(out_THD, leaves, upstream)]


def random_qkv(size: int, heads: tuple[int, int], dtype: torch.dtype, *, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(size)
    shapes = [(size, heads[0], HEAD_DIM), (size, heads[1], HEAD_DIM), (size, heads[1], HEAD_DIM)]
    return [(scale * torch.randn(shape, generator=generator)).to(dtype) for shape in shapes]


def assert_equal(a: Attend, b: Attend, qkv: list[torch.Tensor], tolerance: float) -> None:
    for x, y in zip(outputs_and_gradients(a, qkv), outputs_and_gradients(b, qkv), strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (3, 1)])
@settings(max_examples=60, deadline=None)
@given(sequences=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=14), min_size=1, max_size=9))
def test_blocks_equal_the_dense_mask(heads: tuple[int, int], sequences: list[list[int]]) -> None:
    forest = build_forest(sequences)
    qkv = random_qkv(forest.num_tokens, heads, torch.float64)
    assert_equal(ForestAttend(forest), DenseAttend(forest), qkv, 1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-4), (torch.bfloat16, 6e-2)])
def test_nodes_of_all_sizes_agree_in_every_precision(dtype: torch.dtype, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    trunk = rng.integers(0, 50, 40)
    sequences = [np.concatenate((trunk[: 40 - 2 * i], rng.integers(0, 50, 1 + 3 * i * i))) for i in range(11)]
    forest = build_forest(sequences)
    assert (forest.node_end_U - forest.node_start_U).max() > 256
    assert_equal(ForestAttend(forest), DenseAttend(forest), random_qkv(forest.num_tokens, (4, 2), dtype), tolerance)


def test_large_scores_in_padded_squares_stay_finite() -> None:
    forest = build_forest([[0, 1, 2, 3, 4, 5, 6], [0, 7, 8, 9, 10, 11], [0, 12, 13, 14, 15]])
    assert_equal(ForestAttend(forest), DenseAttend(forest), random_qkv(forest.num_tokens, (2, 2), torch.float32, scale=30.0), 2e-2)


def test_one_sequence_is_causal_attention() -> None:
    forest = build_forest([list(range(33))])
    assert_equal(ForestAttend(forest), CausalAttend(), random_qkv(33, (4, 2), torch.float64), 1e-13)
