"""Which calls the flash kernels get over a tree layout, and that their shares are put together; the kernels themselves are CUDA's."""

# T local tokens, A ancestor keys, B = A + T keys, Q queries and S keys of a call, H query heads, K key/value heads, D head_dim

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from trunkline.attention import levels
from trunkline.attention.blocks import ForestAttend
from trunkline.attention.dense import visibility_TB
from trunkline.attention.forest import build_forest
from trunkline.attention.layout import TreeLayout
from trunkline.attention.levels import LevelForestAttend, levels_of

CPU = torch.device("cpu")


def random_layout(seed: int, *, num_branches: int, num_ancestors: int = 0) -> TreeLayout:
    rng = np.random.default_rng(seed)
    sequences = [rng.integers(0, 50, 30)]
    for _ in range(num_branches - 1):
        origin = sequences[rng.integers(len(sequences))]
        sequences.append(np.concatenate((origin[: rng.integers(0, len(origin) + 1)], rng.integers(0, 50, rng.integers(1, 30)))))
    forest = build_forest(sequences)
    return TreeLayout(forest.node_start_U, forest.node_end_U, forest.node_subtree_end_U, num_ancestors)


@pytest.mark.parametrize("seed", range(8))
def test_squares_and_the_rectangles_of_all_levels_are_what_is_visible_each_pair_once(seed: int) -> None:
    layout = random_layout(seed, num_branches=2 + 3 * seed)
    seen_TT = torch.zeros(layout.num_tokens, layout.num_tokens, dtype=torch.int64)
    for start, end in zip(layout.node_start_U, layout.node_end_U, strict=True):
        seen_TT[start:end, start:end] += torch.ones(end - start, end - start, dtype=torch.int64).tril()
    for nodes in levels_of(layout):
        ends = layout.node_subtree_end_U[nodes]
        assert (layout.node_start_U[nodes][1:] >= ends[:-1]).all(), "nodes of a level lie side by side"
        for node in nodes:
            start, end = layout.node_start_U[node], layout.node_end_U[node]
            seen_TT[end : layout.node_subtree_end_U[node], start:end] += 1
    assert torch.equal(seen_TT, visibility_TB(layout).long())


def spelled_out(q: Tensor, k: Tensor, queries: Tensor, keys: Tensor, is_causal: bool) -> list[tuple[slice, slice, Tensor]]:
    """(queries, keys, scores_HQS) of each sequence of a call."""
    found = []
    for first, end, key_first, key_end in zip(queries[:-1], queries[1:], keys[:-1], keys[1:], strict=True):
        here, there = slice(int(first), int(end)), slice(int(key_first), int(key_end))
        k_SHD = k[there].repeat_interleave(q.shape[1] // k.shape[1], 1)
        scores_HQS = torch.einsum("qhd,shd->hqs", q[here], k_SHD) * q.shape[-1] ** -0.5
        if is_causal:
            scores_HQS = scores_HQS.masked_fill(~torch.ones(scores_HQS.shape[1:], dtype=torch.bool).tril(), -torch.inf)
        found.append((here, there, scores_HQS))
    return found


def forward(q: Tensor, k: Tensor, v: Tensor, queries: Tensor, keys: Tensor, *rest: int | float | bool) -> tuple[Tensor, Tensor]:
    group, parts = q.shape[1] // k.shape[1], spelled_out(q, k, queries, keys, bool(rest[3]))
    outs = [torch.einsum("hqs,shd->qhd", scores.softmax(-1), v[there].repeat_interleave(group, 1)) for _, there, scores in parts]
    return torch.cat(outs), torch.cat([scores.logsumexp(-1) for *_, scores in parts], 1)


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, queries: Tensor, keys: Tensor, *rest: int | float | bool
) -> tuple[Tensor, ...]:
    group, scale = q.shape[1] // k.shape[1], q.shape[-1] ** -0.5
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for here, there, scores_HQS in spelled_out(q, k, queries, keys, bool(rest[3])):
        p_HQS = (scores_HQS - lse[:, here, None]).exp()
        k_SHD, v_SHD = (x[there].repeat_interleave(group, 1) for x in (k, v))
        inner_HQ1 = (grad[here] * out[here]).sum(-1).t().unsqueeze(-1)
        ds_HQS = p_HQS * (torch.einsum("qhd,shd->hqs", grad[here], v_SHD) - inner_HQ1) * scale
        dq[here] += torch.einsum("hqs,shd->qhd", ds_HQS, k_SHD)
        dk[there] += torch.einsum("hqs,qhd->shd", ds_HQS, q[here]).unflatten(1, (-1, group)).sum(2)
        dv[there] += torch.einsum("hqs,qhd->shd", p_HQS, grad[here]).unflatten(1, (-1, group)).sum(2)
    return dq, dk, dv


@pytest.mark.parametrize("num_ancestors", [0, 7])
@pytest.mark.parametrize("heads", [(2, 2), (4, 2)])
@pytest.mark.parametrize("num_branches", [1, 4, 12])
def test_shares_of_the_calls_add_up_to_the_attention_of_the_tree(
    num_branches: int, heads: tuple[int, int], num_ancestors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 1e-5 in fp32, with torch's kernels spelled out, for they need a GPU."""
    monkeypatch.setattr(levels, "_forward", forward)
    monkeypatch.setattr(levels, "_backward", backward)
    layout = random_layout(3, num_branches=num_branches, num_ancestors=num_ancestors)
    generator = torch.Generator().manual_seed(0)
    sizes = [(layout.num_tokens, heads[0]), *[(layout.num_tokens, heads[1])] * 2, *[(num_ancestors, heads[1])] * 2]
    leaves = [torch.randn(*size, 8, generator=generator, requires_grad=True) for size in sizes if size[0]]
    results = []
    for attend in (LevelForestAttend(layout, CPU), ForestAttend(layout)):
        out_THD = attend(0, *leaves)
        results.append([out_THD, *torch.autograd.grad(out_THD.sin().sum(), leaves)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
