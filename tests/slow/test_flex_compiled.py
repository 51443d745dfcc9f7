"""FlexAttention's compiled CPU kernel, which reads our lists of blocks (the eager one evaluates the rule for every pair)."""

# T local tokens, B ancestors and local tokens, H query heads, K key/value heads, D head_dim

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from trunkline.attention.dense import DenseAttend
from trunkline.attention.flex import block_mask
from trunkline.attention.forest import build_forest
from trunkline.attention.layout import TreeLayout

CPU = torch.device("cpu")

pytestmark = pytest.mark.slow  # g++ takes a minute a graph


def random_layout(seed: int, num_ancestors: int) -> TreeLayout:
    rng = np.random.default_rng(seed)
    sequences = [rng.integers(0, 50, 300)]
    for _ in range(9):
        origin = sequences[rng.integers(len(sequences))]
        sequences.append(np.concatenate((origin[: rng.integers(0, len(origin) + 1)], rng.integers(0, 50, rng.integers(1, 300)))))
    forest = build_forest(sequences)
    return TreeLayout(forest.node_start_U, forest.node_end_U, forest.node_subtree_end_U, num_ancestors)


@pytest.mark.timeout(900)
def test_compiled_forward_over_the_listed_blocks_equals_the_dense_mask_within_2e_6() -> None:
    torch.set_num_threads(1)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(flex_attention, fullgraph=True)

    def attend(mask: BlockMask, q_THD: torch.Tensor, *kv_BKD: torch.Tensor) -> torch.Tensor:
        sizes = (mask.seq_lengths[0], mask.seq_lengths[1], mask.seq_lengths[1])
        padded = (F.pad(x.transpose(0, 1), (0, 0, 0, size - len(x)))[None] for x, size in zip((q_THD, *kv_BKD), sizes, strict=True))
        return compiled(*padded, block_mask=mask, enable_gqa=True)[0, :, : len(q_THD)].transpose(0, 1)

    with torch.no_grad():
        for seed, num_ancestors in enumerate((0, 300, 0, 128)):
            layout = random_layout(seed, num_ancestors)
            q_THD = torch.randn(layout.num_tokens, 4, 16)
            kv_BKD = [torch.randn(num_ancestors + layout.num_tokens, 2, 16) for _ in "kv"]
            local, outside = ([x[part] for x in kv_BKD] for part in (slice(num_ancestors, None), slice(num_ancestors)))
            mask, expected = block_mask(layout, CPU), DenseAttend(layout)(0, q_THD, *local, *outside)
            torch.testing.assert_close(attend(mask, q_THD, *kv_BKD), expected, rtol=0, atol=2e-6)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2
        mask.kv_num_blocks[..., -1] -= 1
        assert not torch.allclose(attend(mask, q_THD, *kv_BKD), expected, atol=1e-3), "the kernel was to read the lists"
