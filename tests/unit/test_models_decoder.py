"""The decoder's own promises: causality, relative positions, exact fp64, one table per dtype. Parity with others is tests/parity."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from trunkline.attention.base import CausalAttend
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import RotaryTable, rotate

CONFIG = DecoderConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    qk_norm="head",
    max_positions=128,
)
TOKEN_IDS_T = torch.randint(0, 50, (24,), generator=torch.Generator().manual_seed(0))


class Recording:
    """An Attend that notes what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, torch.Size, torch.Size, torch.Size]] = []

    def __call__(self, layer: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        self.seen.append((layer, q_THD.shape, k_TKD.shape, v_TKD.shape))
        return CausalAttend()(layer, q_THD, k_TKD, v_TKD)


def test_attend_is_called_once_a_layer_in_order_with_grouped_heads() -> None:
    attend = Recording()
    init_decoder(CONFIG, seed=0)(TOKEN_IDS_T, torch.arange(24), attend)
    assert attend.seen == [(layer, (24, 4, 8), (24, 2, 8), (24, 2, 8)) for layer in (0, 1)]


def test_causal_attention_equals_the_formula_written_out_in_fp64_to_1e_12() -> None:
    generator = torch.Generator().manual_seed(0)
    q_THD, k_TKD, v_TKD = (torch.randn(9, heads, 6, generator=generator, dtype=torch.float64) for heads in (4, 2, 2))
    out_THD = CausalAttend()(0, q_THD, k_TKD, v_TKD)
    for t in range(9):
        for h in range(4):
            scores = k_TKD[: t + 1, h // 2] @ q_THD[t, h] * 6**-0.5
            assert (out_THD[t, h] - scores.softmax(0) @ v_TKD[: t + 1, h // 2]).abs().max() <= 1e-12


def test_a_later_token_does_not_change_an_earlier_hidden_state() -> None:
    decoder = init_decoder(CONFIG, seed=0, dtype=torch.float64)
    whole_TC = decoder(TOKEN_IDS_T, torch.arange(24), CausalAttend())
    part_TC = decoder(TOKEN_IDS_T[:10], torch.arange(10), CausalAttend())
    assert (whole_TC[:10] - part_TC).abs().max() <= 1e-12


def test_only_differences_of_positions_matter_in_fp64_to_1e_12() -> None:
    decoder = init_decoder(CONFIG, seed=0, dtype=torch.float64)
    base_TC = decoder(TOKEN_IDS_T, torch.arange(24), CausalAttend())
    moved_TC = decoder(TOKEN_IDS_T, torch.arange(24) + 100, CausalAttend())
    assert (base_TC - moved_TC).abs().max() <= 1e-12


def test_the_rotation_equals_a_turn_of_each_pair_in_fp64_to_1e_14() -> None:
    x_TJD = torch.randn(5, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    positions_T = torch.tensor([0, 3, 3, 90, 7])
    turned_TJD = rotate(x_TJD, *RotaryTable(8, theta=100.0, max_positions=128).rows(positions_T, torch.float64))
    angle_T1F = positions_T[:, None, None] * 100.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    pairs_TJF = torch.complex(x_TJD[..., :4], x_TJD[..., 4:]) * torch.polar(torch.ones_like(angle_T1F), angle_T1F)
    assert (turned_TJD - torch.cat((pairs_TJF.real, pairs_TJF.imag), -1)).abs().max() <= 1e-14


def test_a_decoder_cast_to_fp64_after_use_computes_fp64_angles() -> None:
    used = init_decoder(CONFIG, seed=0)
    used(TOKEN_IDS_T, torch.arange(24), CausalAttend())
    fresh = copy.deepcopy(init_decoder(CONFIG, seed=0)).double()
    positions_T = torch.arange(24)
    assert torch.equal(used.double()(TOKEN_IDS_T, positions_T, CausalAttend()), fresh(TOKEN_IDS_T, positions_T, CausalAttend()))


def test_a_decoder_that_sampled_first_can_be_trained_afterwards() -> None:
    decoder = init_decoder(CONFIG, seed=0)
    with torch.inference_mode():
        decoder(TOKEN_IDS_T, torch.arange(24), CausalAttend())
    decoder.logits(decoder(TOKEN_IDS_T, torch.arange(24), CausalAttend())).sum().backward()
    assert all(parameter.grad is not None for parameter in decoder.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_hidden_states_and_logits_keep_the_dtype_of_the_weights(dtype: torch.dtype) -> None:
    decoder = init_decoder(CONFIG, seed=0, dtype=dtype)
    hidden_TC = decoder(TOKEN_IDS_T, torch.arange(24), CausalAttend())
    assert hidden_TC.dtype == decoder.logits(hidden_TC[3:5]).dtype == dtype
    assert decoder.logits(hidden_TC[3:5]).shape == (2, 50)


def test_a_bf16_forward_is_within_5_percent_of_fp32_so_norms_are_not_computed_in_bf16() -> None:
    exact_TC = init_decoder(CONFIG, seed=0)(TOKEN_IDS_T, torch.arange(24), CausalAttend())
    rounded_TC = init_decoder(CONFIG, seed=0, dtype=torch.bfloat16)(TOKEN_IDS_T, torch.arange(24), CausalAttend())
    assert (rounded_TC.float() - exact_TC).norm() <= 0.05 * exact_TC.norm()
