"""How rows travel to the experts and back on a GPU: the functions, which any device computes."""

# T tokens, K experts a token, R = T * K rows sorted by expert, C width

from __future__ import annotations

import torch

from trunkline.models.experts import _PermutedRows, _SpreadRows

TOP_K = 3


def sorted_rows() -> torch.Tensor:
    return torch.rand(5, 8, generator=torch.Generator().manual_seed(0)).topk(TOP_K).indices.flatten().sort().indices


def test_rows_that_go_to_the_experts_and_come_back_are_each_token_once_for_each_of_its_experts() -> None:
    x_TC, order_R = torch.randn(5, 4), sorted_rows()
    back_RC = _PermutedRows.apply(_SpreadRows.apply(x_TC, order_R, TOP_K), order_R)
    assert torch.equal(back_RC, x_TC.repeat_interleave(TOP_K, dim=0))


def test_gradients_of_moved_rows_are_those_of_indexing() -> None:
    order_R = sorted_rows()
    tokens_TC, rows_RC = (torch.randn(size, 4, dtype=torch.float64, requires_grad=True) for size in (5, 5 * TOP_K))
    assert torch.autograd.gradcheck(lambda x: _SpreadRows.apply(x, order_R, TOP_K), tokens_TC)
    assert torch.autograd.gradcheck(lambda x: _PermutedRows.apply(x, order_R), rows_RC)
