"""Gradients, whole steps, partitions and sparse models on CUDA against the same on CPU in fp32 or fp64.

Needs a GPU: flex attention's backward, the fused optimiser and the grouped product are other kernels there.
"""

# F tokens of all samples laid end to end, R recorded routes, L layers, K experts a token, C hidden_size, E experts, G = 2 x width, F width

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from trunkline.attention import choose
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder
from trunkline.models.experts import Experts, can_group, grouped_experts, looped_experts
from trunkline.models.load import load_policy
from trunkline.trainer.batch import SampleBatch
from trunkline.trainer.checkpoint import restore_checkpoint, save_checkpoint
from trunkline.trainer.config import LossConfig, OptimizerConfig, PhaseConfig, TrainerConfig
from trunkline.trainer.step import Learner
from trunkline.types import PolicyVersion
from trunkline.weights.files import fetch, publish

CUDA = torch.device("cuda")
SHAPE = {
    "vocab_size": 500,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 32,
    "max_positions": 1024,
}
DENSE = DecoderConfig(**SHAPE, qk_norm="head")
TIED = DecoderConfig(**SHAPE, tie_embeddings=True)
SPARSE = DecoderConfig(**SHAPE, qk_norm="full", rotary_dim=16, num_experts=8, experts_per_token=2)
KINDS = [DENSE, TIED, SPARSE]

PROMPT, NUM_SAMPLES, RESPONSE = 256, 12, 100  # 1,456 forest tokens, most of a sample's shared
# Budgets of tokens: 500 holds a chain of partitions of half of it, which are then kept; 182 does not.
KEPT, RECOMPUTED = 500, 182


@pytest.fixture(params=["as chosen", "flex"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kernel that the size and precision ask for, and FlexAttention, which deeper and larger forests would get."""
    if request.param == "flex":
        for name in ("_FLEX_FROM_KEYS", "_MOST_DENSE_PAIRS", "_MOST_LEVELS"):
            monkeypatch.setattr(choose, name, -1)
    return request.param


def make_batch(config: DecoderConfig) -> SampleBatch:
    """Samples on one prompt that part at different places; those of a sparse model with routes for all of their tokens."""
    rng = np.random.default_rng(3)
    prompt = rng.integers(0, config.vocab_size, PROMPT)
    samples = [np.concatenate((prompt, rng.integers(0, config.vocab_size, RESPONSE))) for _ in range(NUM_SAMPLES)]
    mask_F = np.tile(np.arange(PROMPT + RESPONSE) >= PROMPT, NUM_SAMPLES)
    routes = {}
    if config.is_sparse:
        # One record a token: the prompt's is the first sample's for all, so that nothing splits.
        row_ST = np.arange(len(mask_F)).reshape(NUM_SAMPLES, -1)
        row_ST[:, :PROMPT] = row_ST[0, :PROMPT]
        chosen_RLE = rng.random((len(mask_F), config.num_layers, config.num_experts)).argsort(axis=-1)
        routes = {"route_of_F": row_ST.ravel(), "routes_RLK": chosen_RLE[..., : config.experts_per_token].astype(np.uint16)}
    return SampleBatch(
        lengths_S=np.full(NUM_SAMPLES, PROMPT + RESPONSE),
        temperatures_S=np.where(np.arange(NUM_SAMPLES) % 3, 1.0, 0.7),
        token_ids_F=np.concatenate(samples),
        mask_F=mask_F,
        logprobs_F=np.where(mask_F, -6.0 - rng.random(len(mask_F)), 0.0),
        advantages_F=np.where(mask_F, rng.standard_normal(len(mask_F)), 0.0),
        is_current_S=np.zeros(NUM_SAMPLES, np.bool_),
        **routes,
    )


def make_decoder(config: DecoderConfig, device: torch.device, dtype: torch.dtype = torch.float32) -> Decoder:
    return init_decoder(config, seed=2, dtype=torch.float32).to(dtype).to(device)


def learner_of(decoder: Decoder, *, loss: str = "cispo", **trainer: object) -> Learner:
    learner = Learner(decoder, TrainerConfig.model_validate({"device": next(decoder.parameters()).device.type, **trainer}))
    optimizer = OptimizerConfig(lr=1e-3, clip_norm=1e9)
    learner.begin_phase(PhaseConfig(kind="rl", optimizer=optimizer, loss=LossConfig.model_validate({"name": loss})))
    return learner


def gradient(learner: Learner) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten().cpu().double() for parameter in learner.policy.parameters()])


def gradient_of_lone_samples(config: DecoderConfig) -> tuple[torch.Tensor, float]:
    """In fp64 on CPU, one sample at a time; with the sum of the norms, against which differences are measured."""
    batch, total, scale = make_batch(config), None, 0.0
    size = PROMPT + RESPONSE
    for sample in range(NUM_SAMPLES):
        part = slice(sample * size, (sample + 1) * size)
        fields = {name: value[sample : sample + 1] if name.endswith("_S") else value for name, value in vars(batch).items()}
        fields |= {name: value[part] for name, value in vars(batch).items() if name.endswith("_F")}
        learner = learner_of(make_decoder(config, torch.device("cpu"), torch.float64), partition_tokens=10_000)
        learner.train_step(SampleBatch(**fields))
        mine = gradient(learner) / NUM_SAMPLES  # every sample trains as many tokens
        total, scale = mine if total is None else total + mine, scale + float(mine.norm())
    assert total is not None
    return total, scale


@pytest.mark.parametrize("config", KINDS, ids=["dense", "tied", "sparse"])
@pytest.mark.usefixtures("kernel")
def test_tree_gradients_equal_lone_samples(config: DecoderConfig) -> None:
    """fp32 without TF32 within 2e-6 of the sum of norms; bf16 over fp32 masters within 2.5e-2 of the gradient."""
    expected, scale = gradient_of_lone_samples(config)
    exact = learner_of(make_decoder(config, CUDA), partition_tokens=10_000)
    exact.train_step(make_batch(config))
    assert float((gradient(exact) - expected).norm()) <= 2e-6 * scale
    rounded = learner_of(make_decoder(config, CUDA), partition_tokens=10_000, compute_dtype="bfloat16")
    rounded.train_step(make_batch(config))
    assert float((gradient(rounded) - expected).norm() / expected.norm()) <= 2.5e-2
    assert all(parameter.dtype == parameter.grad.dtype == torch.float32 for parameter in rounded.policy.parameters())


def assert_partitions_have_the_gradient_of_the_whole(config: DecoderConfig, *, loss: str = "cispo", tokens: int, within: float) -> None:
    for checkpoint_layers in (False, True):
        learners = [
            learner_of(make_decoder(config, CUDA), loss=loss, partition_tokens=size, **rest)
            for size, rest in ((10_000, {}), (tokens, {"checkpoint_layers": checkpoint_layers}))
        ]
        whole, parts = (learner.train_step(make_batch(config)) for learner in learners)
        assert whole.extra["partitions"] == 1 and parts.extra["partitions"] > 3
        once = parts.num_forest_tokens * (2 if loss == "gspo" else 1)  # which couples tokens, and walks twice
        assert (parts.extra["computed_tokens"] > once) == (tokens == RECOMPUTED)
        expected, found = map(gradient, learners)
        assert float((found - expected).norm()) <= within * float(expected.norm())


@pytest.mark.parametrize("config", KINDS, ids=["dense", "tied", "sparse"])
@pytest.mark.parametrize("loss", ["cispo", "gspo"])
@pytest.mark.parametrize("tokens", [KEPT, RECOMPUTED])
def test_partitions_have_the_gradient_of_the_whole(config: DecoderConfig, loss: str, tokens: int) -> None:
    """Within 2e-6 of the gradient's norm in fp32, layers computed again or not."""
    assert_partitions_have_the_gradient_of_the_whole(config, loss=loss, tokens=tokens, within=2e-6)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("tokens", [KEPT, RECOMPUTED])
def test_partitions_in_bf16_are_as_far_from_fp32_as_the_whole(tokens: int) -> None:
    """Within 2.5e-2 of the gradient of lone samples in fp64, which is what the whole keeps."""
    expected, _ = gradient_of_lone_samples(SPARSE)
    parts = learner_of(make_decoder(SPARSE, CUDA), partition_tokens=tokens, compute_dtype="bfloat16")
    assert parts.train_step(make_batch(SPARSE)).extra["partitions"] > 3
    assert float((gradient(parts) - expected).norm() / expected.norm()) <= 2.5e-2


def test_flex_over_partitions_has_the_gradient_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FLEX_FROM_KEYS", "_MOST_DENSE_PAIRS", "_MOST_LEVELS"):
        monkeypatch.setattr(choose, name, -1)
    assert_partitions_have_the_gradient_of_the_whole(DENSE, tokens=RECOMPUTED, within=2e-6)


@pytest.mark.parametrize("config", KINDS, ids=["dense", "tied", "sparse"])
def test_steps_on_cuda_go_where_those_on_cpu_go(config: DecoderConfig) -> None:
    """Three steps of AdamW: losses within 1e-4, weights within a tenth of what they moved."""
    start = make_decoder(config, torch.device("cpu"))
    ours, theirs = learner_of(copy.deepcopy(start).to(CUDA)), learner_of(copy.deepcopy(start))
    for _ in range(3):
        found, expected = ours.train_step(make_batch(config)), theirs.train_step(make_batch(config))
        assert found.loss == pytest.approx(expected.loss, rel=1e-4, abs=1e-4)
    for x, y, before in zip(ours.policy.parameters(), theirs.policy.parameters(), start.parameters(), strict=True):
        assert float((x.cpu() - y).norm()) <= 0.1 * float((y - before).norm())


def test_recorded_routes_are_replayed_on_cuda() -> None:
    stats = learner_of(make_decoder(SPARSE, CUDA), compute_dtype="bfloat16").train_step(make_batch(SPARSE))
    assert stats.extra["replayed_tokens"] == stats.num_forest_tokens
    assert stats.extra["route_split_tokens"] == 0
    assert stats.extra["route_mismatch"] > 0.5  # the records are drawn at random


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_grouped_product_equals_the_loop_with_experts_that_get_no_token(dtype: torch.dtype, tolerance: float) -> None:
    """Of the largest value; an expert without tokens has a gradient of zero, not whatever memory held."""
    rows_E = torch.tensor([70, 0, 1, 129, 0, 56], device=CUDA)
    x_RC = torch.randn(int(rows_E.sum()), 128, device=CUDA, dtype=dtype)
    gate_up_EGC = torch.randn(6, 192, 128, device=CUDA, dtype=dtype) / 11
    down_ECF = torch.randn(6, 128, 96, device=CUDA, dtype=dtype) / 10
    assert can_group(x_RC, down_ECF)
    results = []
    for compute in (grouped_experts, looped_experts):
        leaves = [x.clone().requires_grad_() for x in (x_RC, gate_up_EGC, down_ECF)]
        out_RC = compute(leaves[0], rows_E, *leaves[1:])
        results.append([out_RC.detach(), *torch.autograd.grad(out_RC.float().sin().sum(), leaves)])
    for found, expected in zip(*results, strict=True):
        assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())
    assert not results[0][2][rows_E == 0].any()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_a_sparse_layer_on_cuda_equals_that_on_cpu(dtype: torch.dtype, tolerance: float) -> None:
    """Of the largest value, against fp64: rows are moved by other kernels there."""
    torch.manual_seed(0)
    experts = Experts(6, 128, 96).to(torch.float64)
    for stack in experts.parameters():
        torch.nn.init.normal_(stack, std=0.1)
    tokens_TC, weights_TK = torch.randn(200, 128, dtype=torch.float64), torch.rand(200, 3, dtype=torch.float64)
    chosen_TK = torch.rand(200, 6).topk(3).indices % 5  # of the sixth none, of some tokens one twice
    results = []
    for device, precision in ((torch.device("cpu"), torch.float64), (CUDA, dtype)):
        layer = copy.deepcopy(experts).to(device, precision)
        leaves = [x.to(precision).to(device, precision).requires_grad_() for x in (tokens_TC, weights_TK)]
        out_TC = layer(leaves[0], chosen_TK.to(device), leaves[1])
        gradients = torch.autograd.grad(out_TC.double().sin().sum(), [*leaves, *layer.parameters()])
        results.append([x.detach().cpu().double() for x in (out_TC, *gradients)])
    for expected, found in zip(*results, strict=True):
        assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


def test_a_checkpoint_written_on_cuda_goes_on_as_if_nothing_had_stopped(tmp_path: Path) -> None:
    learner = learner_of(make_decoder(SPARSE, CUDA), compute_dtype="bfloat16")
    learner.train_step(make_batch(SPARSE))
    save_checkpoint(learner, tmp_path / "saved")
    other = learner_of(make_decoder(SPARSE, CUDA), compute_dtype="bfloat16")
    restore_checkpoint(other, tmp_path / "saved")
    assert all(torch.equal(x, y) for x, y in zip(learner.policy.parameters(), other.policy.parameters(), strict=True))
    found, expected = other.train_step(make_batch(SPARSE)), learner.train_step(make_batch(SPARSE))
    assert found.step == expected.step == 2
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)


def test_weights_published_from_cuda_are_the_masters(tmp_path: Path) -> None:
    learner = learner_of(make_decoder(DENSE, CUDA), compute_dtype="bfloat16")
    learner.train_step(make_batch(DENSE))
    found = fetch(publish(learner.policy.state_dict(), PolicyVersion(1, 0), tmp_path))
    assert all(torch.equal(found[name], tensor.cpu()) for name, tensor in learner.policy.state_dict().items())


def test_times_of_a_steps_parts_are_the_devices(tmp_path: Path) -> None:
    """Work is queued, so that the host's clock would give a step's first half next to nothing."""
    learner = learner_of(make_decoder(DENSE, CUDA), compute_dtype="bfloat16")
    for _ in range(2):
        stats = learner.train_step(make_batch(DENSE))
    parts = [stats.extra[f"{name}_seconds"] for name in ("forest", "forward", "backward", "optimizer")]
    assert min(parts) > 0 and sum(parts) <= stats.seconds * 1.01


def test_a_model_of_transformers_trains_on_cuda_as_on_cpu(tmp_path: Path) -> None:
    """Loss and gradient in fp32 within 1e-4 of the gradient's norm, in bf16 within 5e-2."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    Qwen2ForCausalLM(Qwen2Config(vocab_size=500, max_position_embeddings=512, **sizes)).save_pretrained(tmp_path)
    expected = learner_of(load_policy(tmp_path))
    expected.train_step(make_batch(DENSE))
    for dtype, tolerance in (("float32", 1e-4), ("bfloat16", 5e-2)):
        found = learner_of(load_policy(tmp_path).to(CUDA), compute_dtype=dtype)
        found.train_step(make_batch(DENSE))
        assert float((gradient(found) - gradient(expected)).norm()) <= tolerance * float(gradient(expected).norm())


def test_memory_of_a_step_in_bf16_is_below_that_in_fp32() -> None:
    peaks = {}
    for name in ("float32", "bfloat16", "float32", "bfloat16"):  # the first round compiles
        learner = learner_of(make_decoder(DENSE, CUDA), compute_dtype=name, partition_tokens=10_000)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        learner.train_step(make_batch(DENSE))
        peaks[name] = torch.cuda.max_memory_allocated() - before
    assert peaks["bfloat16"] < 0.8 * peaks["float32"]
