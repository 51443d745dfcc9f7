"""Which blocks FlexAttention visits over a tree layout, its forward on CPU, and which kernel a device gets."""

# T local tokens, A ancestor keys, B = A + T keys, Q padded queries, X query blocks, Y key blocks

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.attention.blocks import ForestAttend
from trunkline.attention.choose import forest_attend
from trunkline.attention.dense import DenseAttend, visibility_TB
from trunkline.attention.flex import BLOCK, FlexForestAttend, block_mask, queries_of_keys, visible_blocks
from trunkline.attention.forest import build_forest
from trunkline.attention.layout import TreeLayout
from trunkline.errors import ConfigError, TrainerError

torch.set_num_threads(1)

CPU = torch.device("cpu")


def random_layout(seed: int, *, num_branches: int, longest: int, num_ancestors: int) -> TreeLayout:
    """Each branch leaves an earlier one at a random place and goes on for up to `longest` tokens."""
    rng = np.random.default_rng(seed)
    sequences = [rng.integers(0, 50, rng.integers(1, longest))]
    for _ in range(num_branches - 1):
        origin = sequences[rng.integers(len(sequences))]
        sequences.append(np.concatenate((origin[: rng.integers(0, len(origin) + 1)], rng.integers(0, 50, rng.integers(1, longest)))))
    forest = build_forest(sequences)
    return TreeLayout(forest.node_start_U, forest.node_end_U, forest.node_subtree_end_U, num_ancestors)


layouts = st.builds(
    random_layout,
    st.integers(0, 10_000),
    num_branches=st.integers(1, 12),
    longest=st.sampled_from([3, 40, 300]),
    num_ancestors=st.sampled_from([0, 1, 127, 128, 300]),
)


def qkv_and_ancestors(layout: TreeLayout, heads: tuple[int, int], dtype: torch.dtype = torch.float32) -> list[torch.Tensor | None]:
    generator = torch.Generator().manual_seed(layout.num_tokens)
    sizes = [(layout.num_tokens, heads[0]), *[(layout.num_tokens, heads[1])] * 2, *[(layout.num_ancestors, heads[1])] * 2]
    tensors = [torch.randn(*size, 16, generator=generator).to(dtype) for size in sizes]
    return [*tensors] if layout.num_ancestors else [*tensors[:3], None, None]


@settings(max_examples=60, deadline=None)
@given(layouts)
def test_empty_blocks_are_empty_and_full_blocks_full_and_partial_ones_neither(layout: TreeLayout) -> None:
    keys = queries_of_keys(layout)
    num_queries, num_keys = keys.num_queries, len(keys.first_B)
    visible_QB = F.pad(visibility_TB(layout), (0, num_keys - layout.num_ancestors - layout.num_tokens))
    pairs_XY = F.pad(visible_QB, (0, 0, 0, num_queries - layout.num_tokens)).unflatten(0, (-1, BLOCK)).unflatten(2, (-1, BLOCK)).sum((1, 3))
    queries_X = (layout.num_tokens - BLOCK * torch.arange(len(pairs_XY))).clamp(0, BLOCK)[:, None]  # padding queries read nothing
    is_partial_XY, is_full_XY = map(torch.from_numpy, visible_blocks(keys))
    assert not (is_partial_XY & is_full_XY).any()
    assert (pairs_XY[~is_partial_XY & ~is_full_XY] == 0).all()
    assert (pairs_XY == BLOCK * queries_X)[is_full_XY].all()
    inside_XY = (queries_X == BLOCK).expand_as(pairs_XY)
    assert ((pairs_XY > 0) & (pairs_XY < BLOCK * BLOCK))[is_partial_XY & inside_XY].all()


@settings(max_examples=40, deadline=None)
@given(layouts)
def test_rule_inside_partial_blocks_is_the_visibility_rule(layout: TreeLayout) -> None:
    mask = block_mask(layout, CPU)
    query_Q, key_B = torch.arange(mask.seq_lengths[0]), torch.arange(mask.seq_lengths[1])
    visible_QB = mask.mask_mod(0, 0, query_Q[:, None], key_B[None])
    num_keys = layout.num_ancestors + layout.num_tokens
    assert torch.equal(visible_QB[: layout.num_tokens, :num_keys], visibility_TB(layout))
    assert not visible_QB[:, num_keys:].any()
    assert visible_QB.any(dim=1).all(), "a softmax over nothing is not a number"


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("num_ancestors", [0, 1, 200])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (3, 1)])
def test_forward_equals_the_dense_mask_within_2e_6(heads: tuple[int, int], num_ancestors: int) -> None:
    layout = random_layout(3, num_branches=9, longest=90, num_ancestors=num_ancestors)
    inputs = qkv_and_ancestors(layout, heads)
    with torch.no_grad():
        flex = FlexForestAttend(layout, CPU)(0, *inputs)
        torch.testing.assert_close(flex, DenseAttend(layout)(0, *inputs), rtol=0, atol=2e-6)


@pytest.mark.parametrize("num_ancestors", [0, 37])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_dense_mask_is_a_softmax_over_the_visible_keys(heads: tuple[int, int], num_ancestors: int) -> None:
    """Within 1e-12 in fp64, forward and backward, the ancestors' gradients included."""
    layout = random_layout(5, num_branches=7, longest=20, num_ancestors=num_ancestors)
    inputs = [x.requires_grad_() for x in qkv_and_ancestors(layout, heads, torch.float64) if x is not None]
    q_THD, k_TKD, v_TKD = inputs[:3]
    k_BKD, v_BKD = (torch.cat((*inputs[place : place + 1], x)) for place, x in ((3, k_TKD), (4, v_TKD)))
    k_BHD, v_BHD = (x.repeat_interleave(heads[0] // heads[1], dim=1) for x in (k_BKD, v_BKD))
    scores_HTB = torch.einsum("thd,bhd->htb", q_THD, k_BHD) / 4
    spelled_THD = torch.einsum("htb,bhd->thd", scores_HTB.masked_fill(~visibility_TB(layout), -torch.inf).softmax(-1), v_BHD)
    dense_THD = DenseAttend(layout)(0, *inputs)
    torch.testing.assert_close(dense_THD, spelled_THD, rtol=0, atol=1e-12)
    upstream = torch.linspace(-1, 1, dense_THD.numel(), dtype=torch.float64).view_as(dense_THD)
    for got, expected in zip(*(torch.autograd.grad(out, inputs, upstream) for out in (dense_THD, spelled_THD)), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_blocks_of_a_long_trunk_with_many_branches_are_mostly_skipped() -> None:
    trunk = np.arange(2048)
    forest = build_forest([np.concatenate((trunk, [2048 + branch], np.arange(511))) for branch in range(16)])
    is_partial_XY, is_full_XY = visible_blocks(queries_of_keys(TreeLayout.of(forest)))
    assert is_full_XY.sum() == 16 * 15 // 2 + 64 * 16 + 16 * 6  # inside the trunk, branches on the trunk, inside branches
    assert is_partial_XY.sum() == 80  # the diagonal


def test_compiled_front_end_traces_new_forests_twice_and_then_no_more() -> None:
    """Of torch.compile only the tracing, which needs no GPU: lengths are symbols from the second layout on, masks are data."""
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    attend = torch.compile(torch.nn.attention.flex_attention.flex_attention, backend=counter, fullgraph=True)
    with torch.no_grad():
        for seed, num_ancestors in enumerate((0, 0, 500, 0, 900, 70)):
            layout = random_layout(seed, num_branches=6 + seed, longest=150, num_ancestors=num_ancestors)
            mask = block_mask(layout, CPU)
            q, k = (torch.randn(1, 2, length, 16) for length in mask.seq_lengths)
            attend(q, k, k, block_mask=mask)
    assert counter.frame_count <= 2


def test_gradients_on_cpu_are_refused_before_any_work() -> None:
    layout = random_layout(1, num_branches=2, longest=5, num_ancestors=0)
    q, k, v, *_ = qkv_and_ancestors(layout, (2, 2))
    with pytest.raises(TrainerError, match="no backward on CPU; train there with"):
        FlexForestAttend(layout, CPU)(0, q.requires_grad_(), k, v)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_cpu_gets_the_block_kernel_whatever_the_size(dtype: torch.dtype) -> None:
    layout = random_layout(1, num_branches=3, longest=9, num_ancestors=5000)
    assert isinstance(forest_attend(layout, CPU, dtype), ForestAttend)


@pytest.mark.parametrize("device", ["mps", "xpu", "meta"])
def test_device_without_a_kernel_is_refused_by_name(device: str) -> None:
    with pytest.raises(ConfigError, match=f"trains on cpu and cuda, got device '{device}'"):
        forest_attend(random_layout(1, num_branches=1, longest=3, num_ancestors=0), torch.device(device), torch.float32)
