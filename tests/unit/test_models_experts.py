"""Experts and the sparse layer's own promises. Parity with transformers is tests/parity."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trunkline.attention.base import CausalAttend
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder
from trunkline.models.experts import Experts, can_group, grouped_experts, looped_experts

CONFIG = DecoderConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    qk_norm="full",
    max_positions=64,
    rotary_dim=8,
    num_experts=6,
    experts_per_token=2,
)
TOKEN_IDS_T = torch.randint(0, 50, (24,), generator=torch.Generator().manual_seed(0))


class Fixed:
    """A Route that always sends every token to the same experts, and notes what it was asked."""

    def __init__(self, *experts: int) -> None:
        self.experts = experts
        self.seen: list[tuple[int, torch.Size, int]] = []

    def __call__(self, layer: int, preference_TE: Tensor, top_k: int) -> Tensor:
        self.seen.append((layer, preference_TE.shape, top_k))
        assert not preference_TE.requires_grad
        return torch.tensor(self.experts).expand(len(preference_TE), -1)


def hidden(decoder: Decoder, **options: Fixed) -> Tensor:
    hidden_TC: Tensor = decoder(TOKEN_IDS_T, torch.arange(24), CausalAttend(), **options)
    return hidden_TC


def random_case(dtype: torch.dtype) -> tuple[Experts, Tensor, Tensor, Tensor]:
    """Experts 2 and 5 get no token."""
    generator = torch.Generator().manual_seed(0)
    experts = Experts(6, 32, 16).to(dtype)
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    x_TC = torch.randn(20, 32, generator=generator).to(dtype).requires_grad_()
    preference_TE = torch.rand(20, 6, generator=generator) - torch.tensor([0, 0, 9, 0, 0, 9])
    weights_TK = torch.rand(20, 3, generator=generator).to(dtype).requires_grad_()
    return experts, x_TC, preference_TE.topk(3).indices, weights_TK


def test_the_output_is_the_weighted_sum_over_each_tokens_experts_in_fp64_to_1e_12() -> None:
    experts, x_TC, experts_TK, weights_TK = random_case(torch.float64)
    out_TC = experts(x_TC, experts_TK, weights_TK)
    for token, x_C in enumerate(x_TC):
        expected_C = torch.zeros(32, dtype=torch.float64)
        for expert, weight in zip(experts_TK[token].tolist(), weights_TK[token], strict=True):
            gate_F, up_F = (experts.gate_up[expert] @ x_C).chunk(2)
            expected_C += weight * (experts.down[expert] @ (F.silu(gate_F) * up_F))
        assert (out_TC[token] - expected_C).abs().max() <= 1e-12


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_the_grouped_product_equals_the_loop_in_value_and_gradients(dtype: torch.dtype, tolerance: float) -> None:
    """Relative to the norm; 1e-5 in fp32, 2% in bf16."""
    experts, x_TC, experts_TK, _ = random_case(dtype)
    expert_R, order_R = experts_TK.flatten().sort()
    x_RC, rows_E = x_TC.detach()[order_R // 3].requires_grad_(), torch.bincount(expert_R, minlength=6)
    assert can_group(x_RC, experts.down)

    def results(compute: Callable[..., Tensor]) -> list[Tensor]:
        out_RC = compute(x_RC, rows_E, experts.gate_up, experts.down)
        return [out_RC, *torch.autograd.grad(out_RC.pow(2).sum(), (x_RC, experts.gate_up, experts.down))]

    for grouped, looped in zip(results(grouped_experts), results(looped_experts), strict=True):
        assert (grouped - looped).norm() <= tolerance * looped.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_expert_without_tokens_has_a_gradient_of_zero(dtype: torch.dtype) -> None:
    experts, *arguments = random_case(dtype)
    experts(*arguments).sum().backward()
    for parameter in experts.parameters():
        assert parameter.grad is not None
        assert [bool(gradient.any()) for gradient in parameter.grad] == [True, True, False, True, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_tokens_give_no_outputs(dtype: torch.dtype) -> None:
    experts = Experts(4, 16, 8).to(dtype)
    assert experts(torch.zeros(0, 16, dtype=dtype), torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 2)).shape == (0, 16)


def test_widths_that_the_grouped_kernels_refuse_are_computed_by_the_loop() -> None:
    assert not can_group(torch.zeros(1, 32), torch.zeros(2, 32, 6))
    config = dataclasses.replace(CONFIG, intermediate_size=6)
    exact_TC = hidden(init_decoder(config, seed=0, dtype=torch.float64))
    assert (hidden(init_decoder(config, seed=0)) - exact_TC).abs().max() <= 1e-4


def test_the_route_is_asked_once_a_layer_and_obeyed() -> None:
    decoder, route = init_decoder(CONFIG, seed=0), Fixed(1, 4)
    hidden(decoder, route=route).sum().backward()
    assert route.seen == [(0, (24, 6), 2), (1, (24, 6), 2)]
    for layer in decoder.model.layers:
        gradient = layer.block_sparse_moe.experts.down.grad
        assert [bool(part.any()) for part in gradient] == [False, True, False, False, True, False]
        assert layer.block_sparse_moe.gate.weight.grad.any()  # whoever chose


def test_the_bias_selects_but_does_not_weigh() -> None:
    decoder = init_decoder(CONFIG, seed=0)
    expected_TC = hidden(decoder, route=Fixed(1, 4))
    for bias_E in decoder.buffers():
        bias_E.copy_(torch.tensor([0.0, 5, 0, 0, 5, 0]))
    assert torch.equal(hidden(decoder, route=Fixed(1, 4)), expected_TC)
    torch.testing.assert_close(hidden(decoder), expected_TC)  # experts 1 and 4, in either order


@pytest.mark.parametrize(
    ("dtype", "kept"), [(torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)]
)
def test_the_bias_keeps_at_least_fp32_through_every_cast(dtype: torch.dtype, kept: torch.dtype) -> None:
    decoder = init_decoder(CONFIG, seed=0)
    for bias_E in decoder.buffers():
        bias_E.fill_(1 / 3)
    decoder.to(dtype)
    assert all(bias_E.dtype == kept and torch.equal(bias_E, torch.full((6,), 1 / 3).to(kept)) for bias_E in decoder.buffers())
    assert hidden(decoder).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layers_computed_again_give_the_same_gradients_exactly(dtype: torch.dtype) -> None:
    decoder = init_decoder(CONFIG, seed=0, dtype=dtype)
    kept = torch.autograd.grad(hidden(decoder).pow(2).sum(), list(decoder.parameters())[:-1])
    decoder.checkpoint_layers = True
    again = torch.autograd.grad(hidden(decoder).pow(2).sum(), list(decoder.parameters())[:-1])
    assert all(torch.equal(first, second) for first, second in zip(kept, again, strict=True))


def test_layers_computed_again_keep_less_for_the_backward_pass() -> None:
    decoder = init_decoder(CONFIG, seed=0)

    def kept_bytes() -> int:
        held: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            hidden(decoder)
        return sum(held.values()) - sum(held.get(p.untyped_storage().data_ptr(), 0) for p in decoder.parameters())

    everything = kept_bytes()
    decoder.checkpoint_layers = True
    assert kept_bytes() < everything / 2
