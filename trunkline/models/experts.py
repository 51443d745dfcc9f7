"""The experts of a sparse layer, each computing exactly the tokens sent to it, none dropped. Owns the products; routing is the caller's."""

# T tokens, K experts a token, R = T * K rows (a token once per expert it goes to), sorted by expert, C hidden_size, E experts,
# F width of an expert, G = 2F (gate and up, stacked)

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Experts(nn.Module):
    """All experts of a layer, stacked: expert e is down[e](silu(gate[e](x)) * up[e](x)), gate before up in `gate_up`."""

    def __init__(self, num_experts: int, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(num_experts, 2 * intermediate_size, hidden_size))
        self.down = nn.Parameter(torch.empty(num_experts, hidden_size, intermediate_size))

    def forward(self, x_TC: Tensor, experts_TK: Tensor, weights_TK: Tensor) -> Tensor:
        """out_TC, the sum of the chosen experts' answers times their weights, in the dtype of `x_TC`."""
        expert_R, order_R = experts_TK.flatten().sort()
        # Not bincount, for which the host waits on a GPU.
        ends_E = torch.searchsorted(expert_R, torch.arange(len(self.down), device=expert_R.device), right=True)
        rows_per_expert_E = ends_E.diff(prepend=ends_E.new_zeros(1))
        token_R = order_R // experts_TK.shape[1]
        is_fast = x_TC.is_cuda  # there index_add, which is index_select's gradient too, adds up one row at a time
        x_RC = _SpreadRows.apply(x_TC, order_R, experts_TK.shape[1]) if is_fast else x_TC.index_select(0, token_R)
        compute = grouped_experts if can_group(x_TC, self.down) else looped_experts
        out_RC = compute(x_RC, rows_per_expert_E, self.gate_up, self.down)
        if is_fast:
            out_TKC = _PermutedRows.apply(out_RC, order_R).unflatten(0, experts_TK.shape)
            return torch.bmm(weights_TK.unsqueeze(1).to(out_RC.dtype), out_TKC).squeeze(1)
        weights_R1 = weights_TK.flatten().index_select(0, order_R).unsqueeze(1)
        return torch.zeros_like(x_TC).index_add(0, token_R, out_RC * weights_R1.to(out_RC.dtype))


class _SpreadRows(torch.autograd.Function):
    """Each token's row for each of its experts, sorted by expert; the gradient is gathered and summed."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x_TC: Tensor, order_R: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(order_R)
        ctx.top_k = top_k  # type: ignore[attr-defined]
        return x_TC.index_select(0, order_R // top_k)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad_RC: Tensor) -> tuple[Tensor | None, ...]:
        (order_R,) = ctx.saved_tensors  # type: ignore[attr-defined]
        grad_TKC = grad_RC.index_select(0, _inverse(order_R)).unflatten(0, (-1, ctx.top_k))  # type: ignore[attr-defined]
        return grad_TKC.sum(1), None, None


class _PermutedRows(torch.autograd.Function):
    """Rows sorted by expert back in the order of the tokens."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x_RC: Tensor, order_R: Tensor) -> Tensor:
        ctx.save_for_backward(order_R)
        return x_RC.index_select(0, _inverse(order_R))

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad_RC: Tensor) -> tuple[Tensor | None, ...]:
        (order_R,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad_RC.index_select(0, order_R), None


def _inverse(order_R: Tensor) -> Tensor:
    """Where each of the rows has gone."""
    return torch.empty_like(order_R).scatter_(0, order_R, torch.arange(len(order_R), device=order_R.device))


def can_group(x_TC: Tensor, down_ECF: Tensor) -> bool:
    """Whether the grouped product computes this: it has no fp64, and its kernels want rows of whole 16 bytes."""
    return x_TC.dtype != torch.float64 and all(size * x_TC.dtype.itemsize % 16 == 0 for size in down_ECF.shape[1:])


def grouped_experts(x_RC: Tensor, rows_per_expert_E: Tensor, gate_up_EGC: Tensor, down_ECF: Tensor) -> Tensor:
    """out_RC of rows sorted by expert: one grouped product for gate and up, one for down."""
    ends_E = rows_per_expert_E.cumsum(0).to(torch.int32)
    gate_RF, up_RF = F.grouped_mm(x_RC, gate_up_EGC.transpose(1, 2), offs=ends_E).chunk(2, dim=-1)
    return F.grouped_mm(F.silu(gate_RF) * up_RF, down_ECF.transpose(1, 2), offs=ends_E)


def looped_experts(x_RC: Tensor, rows_per_expert_E: Tensor, gate_up_EGC: Tensor, down_ECF: Tensor) -> Tensor:
    """The same, one hit expert after the other, in any dtype."""
    # unbind, for its backward stacks the gradients once; indexing would make a zero tensor as large as all experts for each.
    gate_up, down = gate_up_EGC.unbind(), down_ECF.unbind()
    parts = []
    for expert, x_NC in enumerate(x_RC.split(rows_per_expert_E.tolist())):
        if len(x_NC):
            gate_NF, up_NF = F.linear(x_NC, gate_up[expert]).chunk(2, dim=-1)
            parts.append(F.linear(F.silu(gate_NF) * up_NF, down[expert]))
    return torch.cat(parts) if parts else x_RC
