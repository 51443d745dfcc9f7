"""Loss and gradients over a forest equal those of one sample at a time, to rounding."""

# M trained tokens of all samples

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trunkline.attention.base import CausalAttend
from trunkline.attention.blocks import ForestAttend
from trunkline.attention.forest import build_forest
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder
from trunkline.trainer.batch import DemonstrationBatch, SampleBatch
from trunkline.trainer.cispo import cispo_loss
from trunkline.trainer.config import OptimizerConfig, PhaseConfig, PhaseKind, TrainerConfig
from trunkline.trainer.logprobs import find_targets, trained_logprobs
from trunkline.trainer.sft import sft_loss
from trunkline.trainer.step import Learner

torch.set_num_threads(1)  # at these sizes a second thread costs more than it brings, tenfold when cores are contended

VOCAB = 5
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6}


@dataclass(frozen=True)
class Sample:
    prompt: tuple[int, ...]
    response: tuple[int, ...]
    temperature: float = 1.0

    @property
    def token_ids(self) -> tuple[int, ...]:
        return self.prompt + self.response


SPARSE: dict[str, Any] = {"qk_norm": "full", "rotary_dim": 4, "num_experts": 5, "experts_per_token": 2}


def make_decoder(num_kv_heads: int, dtype: torch.dtype, **changes: Any) -> Decoder:
    config = DecoderConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_layers=2,
        num_heads=4,
        num_kv_heads=num_kv_heads,
        head_dim=8,
        max_positions=64,
        qk_norm="head" if num_kv_heads == 2 else "none",
        tie_embeddings=num_kv_heads == 1,
    )
    return init_decoder(dataclasses.replace(config, **changes), seed=7, dtype=dtype)


def stream(samples: list[Sample], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Made-up values aligned with the trained tokens of all samples."""
    size = sum(len(sample.response) for sample in samples)
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(size)).to(dtype)


def forest_logprobs(decoder: Decoder, samples: list[Sample], max_bytes: int) -> torch.Tensor:
    forest = build_forest([sample.token_ids for sample in samples])
    trained_F = np.concatenate([[False] * len(s.prompt) + [True] * len(s.response) for s in samples])
    temperature_F = np.concatenate([[s.temperature] * len(s.token_ids) for s in samples])
    targets = find_targets(forest, trained_F, temperature_F)
    ids_T, positions_T = torch.from_numpy(forest.token_ids_N), torch.from_numpy(forest.positions_N)
    hidden_TC = decoder(ids_T, positions_T, ForestAttend(forest))
    return trained_logprobs(hidden_TC, targets, logits=decoder.logits, vocab_size=VOCAB, max_bytes=max_bytes)


def lone_logprobs(decoder: Decoder, sample: Sample) -> torch.Tensor:
    ids_T = torch.tensor(sample.token_ids)
    hidden_TC = decoder(ids_T, torch.arange(len(ids_T)), CausalAttend())
    logp_TV = torch.log_softmax(decoder.logits(hidden_TC) / sample.temperature, dim=-1)
    first = len(sample.prompt)
    return logp_TV[first - 1 : -1].gather(1, ids_T[first:, None])[:, 0]


def gradients(decoder: Decoder, loss: torch.Tensor) -> torch.Tensor:
    parts = torch.autograd.grad(loss, list(decoder.parameters()))
    return torch.cat([part.flatten() for part in parts])


def assert_equal_to_lone_samples(
    samples: list[Sample], dtype: torch.dtype, *, num_kv_heads: int, max_bytes: int = 2**20, **changes: Any
) -> None:
    decoder = make_decoder(num_kv_heads, dtype, **changes)
    old_M, advantage_M = -stream(samples, dtype, 1).abs(), stream(samples, dtype, 2)

    def loss(logp_M: torch.Tensor, start: int) -> torch.Tensor:
        part = slice(start, start + len(logp_M))
        return cispo_loss(logp_M, old_M[part], advantage_M[part], is_weight_cap=2.0).total / len(old_M)

    merged = loss(forest_logprobs(decoder, samples, max_bytes), 0)
    merged_gradient = gradients(decoder, merged)
    losses, alone, start = [], [], 0
    for sample in samples:
        losses.append(loss(lone_logprobs(decoder, sample), start))
        alone.append(gradients(decoder, losses[-1]))
        start += len(sample.response)
    scale = sum(part.norm().item() for part in alone)
    assert (merged_gradient - sum(alone)).norm().item() <= TOLERANCE[dtype] * scale
    assert abs(merged.item() - sum(part.item() for part in losses)) <= TOLERANCE[dtype] * sum(abs(part.item()) for part in losses) + 1e-30


tokens = st.integers(0, 2)


@st.composite
def step_samples(draw: st.DrawFn) -> list[Sample]:
    """Samples that share prompts, end inside each other, continue each other, or repeat."""
    trunks = draw(st.lists(st.lists(tokens, min_size=1, max_size=9), min_size=1, max_size=3))
    samples: list[Sample] = []
    for _ in range(draw(st.integers(1, 7))):
        origin = draw(st.integers(0, len(trunks) + len(samples) - 1))
        whole = tuple(trunks[origin]) if origin < len(trunks) else samples[origin - len(trunks)].token_ids
        prompt = whole[: draw(st.integers(1, len(whole)))]
        response = tuple(draw(st.lists(tokens, min_size=1, max_size=6)))
        samples.append(Sample(prompt, response, draw(st.sampled_from([1.0, 1.0, 0.7]))))
    return samples


inside_a_chain = [Sample((1,), (2, 0, 1, 2)), Sample((1, 2), (0,)), Sample((1, 2, 0), (1,))]
response_in_a_prompt = [Sample((0, 1), (2, 2)), Sample((0, 1, 2, 2), (1, 0)), Sample((0, 1, 2, 2), (1, 2)), Sample((0, 1), (0,))]
identical = [Sample((0, 1), (2, 1)), Sample((0, 1), (2, 1)), Sample((0, 1), (2, 1), 0.7)]
many_roots = [Sample((0,), (1,)), Sample((1,), (1,)), Sample((2,), (0, 0, 1))]
one_chain = [Sample((0,), (1, 2, 0, 1))]


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@settings(max_examples=40, deadline=None)
@given(samples=step_samples())
@example(samples=inside_a_chain)
@example(samples=response_in_a_prompt)
@example(samples=identical)
@example(samples=many_roots)
@example(samples=one_chain)
def test_forest_equals_lone_samples_in_fp64(num_kv_heads: int, samples: list[Sample]) -> None:
    assert_equal_to_lone_samples(samples, torch.float64, num_kv_heads=num_kv_heads)


@settings(max_examples=40, deadline=None)
@given(samples=step_samples())
@example(samples=inside_a_chain)
@example(samples=identical)
def test_forest_equals_lone_samples_in_a_sparse_decoder_in_fp64(samples: list[Sample]) -> None:
    assert_equal_to_lone_samples(samples, torch.float64, num_kv_heads=2, **SPARSE)


@settings(max_examples=40, deadline=None)
@given(samples=step_samples())
@example(samples=response_in_a_prompt)
def test_forest_equals_lone_samples_in_fp32(samples: list[Sample]) -> None:
    assert_equal_to_lone_samples(samples, torch.float32, num_kv_heads=2)


@settings(max_examples=15, deadline=None)
@given(samples=step_samples(), max_bytes=st.integers(1, 200))
def test_recomputed_chunks_of_logits_change_nothing(samples: list[Sample], max_bytes: int) -> None:
    assert_equal_to_lone_samples(samples, torch.float64, num_kv_heads=4, max_bytes=max_bytes)


def test_long_branches_equal_lone_samples() -> None:
    rng = np.random.default_rng(3)
    trunk = rng.integers(0, VOCAB, 20).tolist()
    samples = [Sample(tuple(trunk[: 20 - i % 3]), tuple(rng.integers(0, VOCAB, 5 + 3 * i).tolist())) for i in range(12)]
    assert_equal_to_lone_samples(samples, torch.float64, num_kv_heads=2)
    assert_equal_to_lone_samples(samples, torch.float32, num_kv_heads=2)


def test_weighted_likelihood_over_a_forest_equals_lone_samples() -> None:
    samples, dtype = response_in_a_prompt, torch.float64
    decoder = make_decoder(2, dtype)
    weight_M = stream(samples, dtype, 4).abs()
    merged = sft_loss(forest_logprobs(decoder, samples, 2**20), weight_M)
    alone = sft_loss(torch.cat([lone_logprobs(decoder, sample) for sample in samples]), weight_M)
    torch.testing.assert_close(merged, alone, rtol=1e-13, atol=0)
    torch.testing.assert_close(gradients(decoder, merged), gradients(decoder, alone), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@settings(max_examples=15, deadline=None)
@given(samples=step_samples(), limit=st.integers(1, 40))
@example(samples=response_in_a_prompt, limit=5)
def test_a_step_in_partitions_has_the_gradient_of_one_pass(dtype: torch.dtype, samples: list[Sample], limit: int) -> None:
    """Within ten times TOLERANCE, RL and supervised, whatever the size of a partition."""
    rng = np.random.default_rng(5)
    lengths_S = np.array([len(sample.token_ids) for sample in samples])
    token_ids_F = np.concatenate([sample.token_ids for sample in samples]).astype(np.int64)
    mask_F = np.concatenate([[False] * len(s.prompt) + [True] * len(s.response) for s in samples])
    temperatures_S = np.array([sample.temperature for sample in samples])
    advantages_F = np.where(mask_F, rng.standard_normal(len(mask_F)), 0)
    is_current_S = np.zeros(len(samples), np.bool_)
    batch = SampleBatch(lengths_S, temperatures_S, token_ids_F, mask_F, -rng.random(len(mask_F)), advantages_F, is_current_S)
    demonstrations = DemonstrationBatch(lengths_S, token_ids_F, np.where(mask_F, rng.random(len(mask_F)) + 0.1, 0))

    def gradient(kind: PhaseKind, partition_tokens: int) -> tuple[float, torch.Tensor]:
        learner = Learner(make_decoder(2, dtype), TrainerConfig(partition_tokens=partition_tokens))
        learner.begin_phase(PhaseConfig(kind=kind, optimizer=OptimizerConfig(lr=1e-9, clip_norm=1e9)))
        stats = learner.train_step(batch) if kind == "rl" else learner.supervised_step(demonstrations)
        return stats.loss, torch.cat([p.grad.flatten() for p in learner.policy.parameters() if p.grad is not None])

    for kind in ("rl", "supervised"):
        whole_loss, whole = gradient(kind, 10_000)
        loss, parts = gradient(kind, limit)
        assert loss == pytest.approx(whole_loss, rel=1e-5, abs=1e-6)
        assert (parts - whole).norm() <= 10 * TOLERANCE[dtype] * max(1.0, whole.norm())
