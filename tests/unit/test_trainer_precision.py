"""bf16 computation over fp32 master weights, on CPU."""

# T forest tokens, N chosen tokens, C hidden_size, V vocabulary

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from trunkline.attention.base import Attend, CausalAttend
from trunkline.attention.blocks import ForestAttend
from trunkline.attention.forest import build_forest
from trunkline.attention.layout import TreeLayout
from trunkline.errors import ConfigError
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder
from trunkline.trainer.batch import DemonstrationBatch
from trunkline.trainer.checkpoint import restore_checkpoint, save_checkpoint
from trunkline.trainer.config import OptimizerConfig, PhaseConfig, TrainerConfig
from trunkline.trainer.precision import computing_in
from trunkline.trainer.step import Learner

torch.set_num_threads(1)

SHAPE = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 16,
    "max_positions": 64,
}
DENSE = DecoderConfig(**SHAPE)
TIED = DecoderConfig(**SHAPE, tie_embeddings=True)
SPARSE = DecoderConfig(**SHAPE, qk_norm="full", num_experts=4, experts_per_token=2)
KINDS = [DENSE, TIED, SPARSE]

TRUNK = list(range(12))
SAMPLES = [[*TRUNK, *range(20 + branch, 28 + branch)] for branch in range(4)]


class FixedExperts:
    """Rounding must not send a token elsewhere: what is compared is arithmetic."""

    def __call__(self, layer: int, preference_TE: torch.Tensor, top_k: int) -> torch.Tensor:
        return (layer + torch.arange(top_k)).expand(len(preference_TE), top_k) % preference_TE.shape[1]


def make_decoder(config: DecoderConfig, dtype: torch.dtype = torch.float32) -> Decoder:
    return init_decoder(config, seed=5, dtype=dtype)


def backward(decoder: Decoder, token_ids: np.ndarray, positions: np.ndarray, attend: Attend, predicted: np.ndarray) -> None:
    """Likelihood of `predicted`, one (token, next id) pair a row."""
    hidden_TC = decoder(torch.from_numpy(token_ids), torch.from_numpy(positions), attend, FixedExperts())
    logits_NV = decoder.logits(hidden_TC[torch.from_numpy(predicted[:, 0])])
    torch.nn.functional.cross_entropy(logits_NV, torch.from_numpy(predicted[:, 1]), reduction="sum").backward()


def backward_tree(decoder: Decoder) -> None:
    forest = build_forest(SAMPLES)
    children = np.flatnonzero(forest.parent_N >= 0)
    pairs = np.stack((forest.parent_N[children], forest.token_ids_N[children]), axis=1)
    repeats = np.bincount(forest.paths_F, minlength=forest.num_tokens)[children]
    backward(decoder, forest.token_ids_N, forest.positions_N, ForestAttend(TreeLayout.of(forest)), pairs.repeat(repeats, axis=0))


def backward_sample(decoder: Decoder, sample: list[int]) -> None:
    ids, positions = np.array(sample), np.arange(len(sample))
    backward(decoder, ids, positions, CausalAttend(), np.stack((positions[:-1], ids[1:]), axis=1))


def gradient(decoder: Decoder) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten().double() for parameter in decoder.parameters() if parameter.grad is not None])


@pytest.mark.parametrize("config", KINDS)
def test_weights_are_the_masters_again_afterwards(config: DecoderConfig) -> None:
    decoder = make_decoder(config)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    with computing_in(decoder, torch.bfloat16):
        assert decoder.model.layers[0].self_attn.q_proj.weight.dtype == torch.bfloat16
        backward_tree(decoder)
    for name, value in decoder.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])
    assert all(parameter.grad.dtype == torch.float32 for parameter in decoder.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("config", KINDS)
def test_head_router_and_logits_stay_in_fp32(config: DecoderConfig) -> None:
    decoder = make_decoder(config)
    exact = {id(parameter) for parameter in decoder.full_precision_parameters()}
    with computing_in(decoder, torch.bfloat16):
        for parameter in decoder.parameters():
            assert parameter.dtype == (torch.float32 if id(parameter) in exact else torch.bfloat16)
        hidden_TC = decoder(torch.arange(5), torch.arange(5), CausalAttend())
        assert hidden_TC.dtype == torch.bfloat16
        assert decoder.logits(hidden_TC).dtype == torch.float32


def test_gradients_of_several_passes_are_summed_in_fp32() -> None:
    decoder = make_decoder(DENSE)
    alone = []
    for sample in SAMPLES:
        decoder.zero_grad()
        with computing_in(decoder, torch.bfloat16):
            backward_sample(decoder, sample)
        alone.append([parameter.grad.clone() for parameter in decoder.parameters()])
    decoder.zero_grad()
    backward_fp32 = [torch.stack(parts).cumsum(0)[-1] for parts in zip(*alone, strict=True)]
    for samples in (SAMPLES[:1], SAMPLES[1:]):  # what was there before counts too
        with computing_in(decoder, torch.bfloat16):
            for sample in samples:
                backward_sample(decoder, sample)
    for parameter, expected in zip(decoder.parameters(), backward_fp32, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=1e-7)


def test_no_gradient_is_held_twice_during_the_passes() -> None:
    decoder = make_decoder(DENSE)
    with computing_in(decoder, torch.bfloat16):
        backward_tree(decoder)
        held = [name for name, parameter in decoder.named_parameters() if parameter.grad is not None]
        assert held == ["lm_head.weight"]


@pytest.mark.parametrize("config", KINDS)
def test_tree_in_bf16_is_as_near_to_fp32_as_lone_samples_in_bf16(config: DecoderConfig) -> None:
    """Relative L2 of all gradients within 2.5e-2 of fp32, and within 1.25 times the error of lone samples."""
    errors = {}
    decoder = make_decoder(config)
    for sample in SAMPLES:
        backward_sample(decoder, sample)
    exact = gradient(decoder)
    for name in ("tree", "alone"):
        decoder.zero_grad()
        with computing_in(decoder, torch.bfloat16):
            if name == "tree":
                backward_tree(decoder)
            else:
                for sample in SAMPLES:
                    backward_sample(decoder, sample)
        errors[name] = float((gradient(decoder) - exact).norm() / exact.norm())
    assert errors["tree"] <= 2.5e-2
    assert errors["tree"] <= 1.25 * errors["alone"]


def test_steps_too_small_for_bf16_add_up() -> None:
    decoder = make_decoder(DENSE)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-6, weight_decay=0.0)
    weight = decoder.model.layers[0].mlp.down_proj.weight
    start = weight.detach().clone()
    for _ in range(3):
        decoder.zero_grad()
        with computing_in(decoder, torch.bfloat16):
            backward_tree(decoder)
        optimizer.step()
    moved = (weight.detach() - start).abs()
    assert 1e-6 < float(moved.median()) < 4e-6
    assert float((start.bfloat16() == weight.bfloat16()).float().mean()) > 0.9, "the steps were to be below the resolution of bf16"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_nothing_is_touched_where_weights_have_the_dtype_already(dtype: torch.dtype) -> None:
    decoder = make_decoder(DENSE, dtype)
    places = [parameter.data_ptr() for parameter in decoder.parameters()]
    with computing_in(decoder, dtype):
        assert [parameter.data_ptr() for parameter in decoder.parameters()] == places
        assert all(not parameter._post_accumulate_grad_hooks for parameter in decoder.parameters())


def test_a_failure_inside_gives_the_masters_back() -> None:
    decoder = make_decoder(SPARSE)
    with pytest.raises(ZeroDivisionError), computing_in(decoder, torch.bfloat16):
        raise ZeroDivisionError
    assert {parameter.dtype for parameter in decoder.parameters()} == {torch.float32}


def test_frozen_weights_get_no_gradient() -> None:
    decoder = make_decoder(DENSE)
    decoder.model.layers[0].mlp.requires_grad_(False)
    with computing_in(decoder, torch.bfloat16):
        backward_tree(decoder)
    assert decoder.model.layers[0].mlp.down_proj.weight.grad is None
    assert decoder.model.layers[1].mlp.down_proj.weight.grad is not None


def test_weights_narrower_than_the_computation_are_refused() -> None:
    with (
        pytest.raises(ConfigError, match=r"embed_tokens.weight are narrower than torch.float32.*load the model in"),
        computing_in(make_decoder(DENSE, torch.bfloat16), torch.float32),
    ):
        pass


@pytest.mark.parametrize("config", KINDS)
def test_a_learner_in_bf16_resumes_exactly(config: DecoderConfig, tmp_path: Path) -> None:
    """Weights bit for bit after three steps, one of them after a restart from a checkpoint."""
    ids_F = np.concatenate(SAMPLES)
    lengths_S = np.array([len(sample) for sample in SAMPLES])
    batch = DemonstrationBatch(lengths_S, ids_F, np.tile(np.arange(lengths_S[0]) > 0, len(SAMPLES)).astype(np.float64))

    def learner() -> Learner:
        made = Learner(make_decoder(config), TrainerConfig(compute_dtype="bfloat16", partition_tokens=20))
        made.begin_phase(PhaseConfig(kind="supervised", optimizer=OptimizerConfig(lr=1e-4)))
        return made

    whole, first, second = learner(), learner(), learner()
    for _ in range(3):
        whole.supervised_step(batch)
    first.supervised_step(batch)
    first.supervised_step(batch)
    save_checkpoint(first, tmp_path / "checkpoint")
    restore_checkpoint(second, tmp_path / "checkpoint")
    second.supervised_step(batch)
    for name, value in second.policy.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, whole.policy.state_dict()[name])
