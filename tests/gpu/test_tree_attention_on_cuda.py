"""Tree attention on CUDA, forward and backward, against fp64 on CPU and against one sample at a time.

Needs a GPU: FlexAttention has no backward on CPU, and the fused kernels behind the dense mask are CUDA's own.
"""

# T local tokens, A ancestor keys

from __future__ import annotations

import numpy as np
import pytest
import torch

from trunkline.attention.base import CausalAttend, TreeAttend
from trunkline.attention.blocks import ForestAttend
from trunkline.attention.choose import forest_attend
from trunkline.attention.dense import DenseAttend
from trunkline.attention.flex import FlexForestAttend
from trunkline.attention.forest import Forest, build_forest
from trunkline.attention.layout import TreeLayout
from trunkline.attention.levels import LevelForestAttend, levels_of

CUDA = torch.device("cuda")
HEAD_DIM = 64
# Largest difference over the largest value. fp32: order of sums, and powers of two around a log-sum-exp of about ten, which is
# rounded to 1e-6 for all keys of a query alike (7.8e-6 seen, of a value that 3,000 queries add up to); bf16: rounding of the
# outputs themselves (2**-8) and of sums of them.
TOLERANCE = {torch.float32: 1.2e-5, torch.bfloat16: 2.5e-2}
KERNELS = {"flex": FlexForestAttend, "dense": DenseAttend, "levels": LevelForestAttend}
CASES = [(kernel, dtype) for kernel in KERNELS for dtype in TOLERANCE if kernel != "levels" or dtype == torch.bfloat16]


def random_forest(seed: int, *, num_branches: int, longest: int) -> Forest:
    rng = np.random.default_rng(seed)
    sequences = [rng.integers(0, 50, longest)]
    for _ in range(num_branches - 1):
        origin = sequences[rng.integers(len(sequences))]
        sequences.append(np.concatenate((origin[: rng.integers(0, len(origin) + 1)], rng.integers(0, 50, rng.integers(1, longest)))))
    return build_forest(sequences)


def with_ancestors(forest: Forest, num_ancestors: int) -> TreeLayout:
    return TreeLayout(forest.node_start_U, forest.node_end_U, forest.node_subtree_end_U, num_ancestors)


def random_inputs(layout: TreeLayout, heads: tuple[int, int]) -> list[torch.Tensor]:
    """q, k, v and, if there are ancestors, their keys and values."""
    generator = torch.Generator().manual_seed(layout.num_tokens)
    sizes = [(layout.num_tokens, heads[0]), *[(layout.num_tokens, heads[1])] * 2, *[(layout.num_ancestors, heads[1])] * 2]
    return [torch.randn(*size, HEAD_DIM, generator=generator, dtype=torch.float64) for size in sizes if size[0]]


def run(attend: TreeAttend, inputs: list[torch.Tensor], device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
    """Output and all gradients, in fp64 on CPU."""
    leaves = [x.to(device, dtype).requires_grad_() for x in inputs]
    out_THD = attend(0, *leaves)
    upstream = torch.linspace(-1, 1, out_THD.numel(), dtype=torch.float64).view(out_THD.shape).to(device, dtype)
    return [x.detach().cpu().double() for x in (out_THD, *torch.autograd.grad(out_THD, leaves, upstream))]


def assert_near(found: list[torch.Tensor], expected: list[torch.Tensor], tolerance: float) -> None:
    for x, y in zip(found, expected, strict=True):
        assert torch.isfinite(x).all()
        assert (x - y).abs().max() <= tolerance * y.abs().max()


@pytest.mark.parametrize(("kernel", "dtype"), CASES)
@pytest.mark.parametrize("num_ancestors", [0, 333])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_kernel_equals_fp64_on_cpu(kernel: str, dtype: torch.dtype, num_ancestors: int, heads: tuple[int, int]) -> None:
    """Within TOLERANCE of the block kernel in fp64, from the values that `dtype` can hold."""
    layout = with_ancestors(random_forest(1, num_branches=12, longest=300), num_ancestors)
    inputs = [x.to(dtype).double() for x in random_inputs(layout, heads)]
    exact = run(ForestAttend(layout), inputs, torch.device("cpu"), torch.float64)
    assert_near(run(KERNELS[kernel](layout, CUDA), inputs, CUDA, dtype), exact, TOLERANCE[dtype])


@pytest.mark.parametrize(("kernel", "dtype"), CASES)
def test_kernel_equals_one_sample_at_a_time(kernel: str, dtype: torch.dtype) -> None:
    """Within twice TOLERANCE: outputs along each path; gradients add up over the samples."""
    forest = random_forest(2, num_branches=8, longest=200)
    q, k, v = (x.to(CUDA, dtype) for x in random_inputs(TreeLayout.of(forest), (4, 2)))
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out_THD = KERNELS[kernel](TreeLayout.of(forest), CUDA)(0, *leaves)
    alone = [x.double().requires_grad_() for x in (q, k, v)]
    total = torch.zeros((), dtype=torch.float64, device=CUDA)
    tree_total = torch.zeros((), dtype=torch.float64, device=CUDA)
    for sample in range(len(forest.path_offsets_S1) - 1):
        path = torch.from_numpy(forest.path(sample)).to(CUDA)
        lone_THD = CausalAttend()(0, *(x[path].to(dtype) for x in alone))
        assert_near([out_THD[path].detach().double()], [lone_THD.detach().double()], 2 * TOLERANCE[dtype])
        weight_THD = torch.linspace(-1, 1, lone_THD.numel(), device=CUDA, dtype=torch.float64).view(lone_THD.shape)
        total = total + (lone_THD.double() * weight_THD).sum()
        tree_total = tree_total + (out_THD[path].double() * weight_THD).sum()
    found, expected = torch.autograd.grad(tree_total, leaves), torch.autograd.grad(total, alone)
    assert_near([x.double() for x in found], list(expected), 2 * TOLERANCE[dtype])


def test_flex_serves_forests_of_all_sizes_with_few_compilations() -> None:
    """Lengths are symbols from the second forest on: 20 forests, with and without ancestors, compile at most three graphs."""
    counters = torch._dynamo.utils.counters
    counters.clear()
    for seed in range(20):
        layout = with_ancestors(random_forest(seed, num_branches=6 + seed, longest=150), 50 * (seed % 3))
        inputs = random_inputs(layout, (4, 2))
        run(FlexForestAttend(layout, CUDA), inputs, CUDA, torch.bfloat16)
    assert counters["stats"]["unique_graphs"] <= 3


@pytest.mark.parametrize("kernel", [FlexForestAttend, LevelForestAttend])
def test_long_forests_need_no_dense_mask(kernel: type[FlexForestAttend] | type[LevelForestAttend]) -> None:
    """32k tokens, one head: a mask of 1 byte a pair would be 1 GiB; all that is alive stays below 256 MiB."""
    trunk = np.arange(16_384)
    forest = build_forest([np.concatenate((trunk, [100_000 + branch], np.arange(2_047))) for branch in range(8)])
    q, k, v = (torch.randn(forest.num_tokens, 1, HEAD_DIM, device=CUDA, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    small = random_forest(0, num_branches=2, longest=600)
    run(kernel(TreeLayout.of(small), CUDA), random_inputs(TreeLayout.of(small), (1, 1)), CUDA, torch.bfloat16)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kernel(TreeLayout.of(forest), CUDA)(0, q, k, v).sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 256 * 2**20


@pytest.mark.parametrize("head_dim", [60, 264])
def test_heads_that_the_flash_kernels_do_not_know_are_computed_all_the_same(head_dim: int) -> None:
    layout = with_ancestors(random_forest(1, num_branches=6, longest=200), 100)
    inputs = [torch.randn(len(x), x.shape[1], head_dim, dtype=torch.bfloat16).double() for x in random_inputs(layout, (2, 1))]
    exact = run(ForestAttend(layout), inputs, torch.device("cpu"), torch.float64)
    assert_near(run(LevelForestAttend(layout, CUDA), inputs, CUDA, torch.bfloat16), exact, TOLERANCE[torch.bfloat16])


def test_chosen_kernel_goes_by_size_depth_and_precision() -> None:
    short, long = (TreeLayout.of(build_forest([np.arange(size)])) for size in (600, 3072))
    deep = TreeLayout.of(build_forest([np.append(np.arange(300 * place), 9_999) for place in range(1, 12)]))
    assert len(levels_of(deep)) > 8
    assert isinstance(forest_attend(short, CUDA, torch.bfloat16), LevelForestAttend)
    assert isinstance(forest_attend(long, CUDA, torch.bfloat16), LevelForestAttend)
    assert isinstance(forest_attend(deep, CUDA, torch.bfloat16), FlexForestAttend)
    assert isinstance(forest_attend(long, CUDA, torch.float32), DenseAttend)
    assert isinstance(forest_attend(with_ancestors(build_forest([np.arange(600)]), 500_000), CUDA, torch.float32), FlexForestAttend)
    assert isinstance(forest_attend(long, CUDA, torch.float64), DenseAttend)
