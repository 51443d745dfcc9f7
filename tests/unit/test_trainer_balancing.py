"""The selection bias moves against the load, and the load that is measured is the paper's."""

# L layers, E experts

from __future__ import annotations

import pytest
import torch

from trunkline.attention.base import CausalAttend
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder
from trunkline.models.routing import TopK
from trunkline.trainer.balancing import load_violation, update_bias_

LAYERS, EXPERTS, TOP_K = 2, 8, 2


def make_decoder(num_experts: int) -> Decoder:
    config = DecoderConfig(
        vocab_size=11,
        hidden_size=16,
        intermediate_size=8,
        num_layers=LAYERS,
        num_heads=2,
        num_kv_heads=2,
        head_dim=8,
        num_experts=num_experts,
        experts_per_token=min(TOP_K, num_experts),
        qk_norm="full" if num_experts else "none",
    )
    return init_decoder(config, seed=3)


def biases(decoder: Decoder) -> torch.Tensor:
    return torch.stack([layer.get_buffer("block_sparse_moe.e_score_correction_bias") for layer in decoder.model.layers])


def test_bias_moves_by_the_rate_against_the_load_of_its_own_layer() -> None:
    decoder = make_decoder(4)
    counts_LE = torch.tensor([[0, 2, 4, 2], [100, 0, 0, 0]], dtype=torch.float64)
    update_bias_(decoder, counts_LE, 0.5)
    assert biases(decoder).tolist() == [[0.5, 0.0, -0.5, 0.0], [-0.5, 0.5, 0.5, 0.5]]
    update_bias_(decoder, counts_LE, 0.25)
    assert biases(decoder)[0].tolist() == [0.75, 0.0, -0.75, 0.0]


def test_a_dense_decoder_has_nothing_to_balance() -> None:
    decoder = make_decoder(0)
    before = {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
    update_bias_(decoder, torch.zeros(LAYERS, 0), 0.5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in decoder.state_dict().items())


def test_counts_of_another_number_of_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        update_bias_(make_decoder(4), torch.ones(1, 4), 0.5)


def test_violation_is_what_the_busiest_expert_has_beyond_the_mean() -> None:
    even, busy, one_takes_all = [3.0, 3.0, 3.0, 3.0], [6.0, 2.0, 2.0, 2.0], [4.0, 0.0, 0.0, 0.0]
    assert load_violation(torch.tensor([even, busy])) == pytest.approx((0.5, 1.0))
    assert load_violation(torch.tensor([even, one_takes_all, [0.0] * 4])) == pytest.approx((1.0, 3.0))


class _Counting(TopK):
    """The plain choice, counted."""

    def __init__(self) -> None:
        self.counts_LE = torch.zeros(LAYERS, EXPERTS)

    def __call__(self, layer: int, preference_TE: torch.Tensor, top_k: int) -> torch.Tensor:
        experts_TK = super().__call__(layer, preference_TE, top_k)
        self.counts_LE[layer] += torch.bincount(experts_TK.flatten(), minlength=EXPERTS)
        return experts_TK


def test_updates_even_out_the_load_of_a_skewed_router() -> None:
    decoder = make_decoder(EXPERTS)
    with torch.no_grad():
        for layer in decoder.model.layers:
            layer.get_buffer("block_sparse_moe.e_score_correction_bias")[:2] += 0.2  # two experts take nearly all
    token_ids_T = torch.randint(0, 11, (400,), generator=torch.Generator().manual_seed(0))
    violations = []
    for _ in range(60):
        route = _Counting()
        with torch.no_grad():
            decoder(token_ids_T, torch.arange(400), CausalAttend(), route)
        violations.append(load_violation(route.counts_LE).worst)
        update_bias_(decoder, route.counts_LE, 0.005)
    assert violations[0] > 2
    assert max(violations[-10:]) < 1
