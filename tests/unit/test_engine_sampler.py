"""Sampling: the right distribution, the right logprob, and numbers that depend on seed and position alone."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from trunkline.engine.sampler import Sampled, sample, uniform

NUM_DRAWS = 40_000


def _sample(logits_NV: torch.Tensor, *, temperature: float = 1.0, top_p: float = 1.0, seed: int = 7, first: int = 0) -> Sampled:
    num_rows = len(logits_NV)
    return sample(
        logits_NV,
        context_N=np.arange(num_rows),
        temperature_N=np.full(num_rows, temperature),
        top_p_N=np.full(num_rows, top_p),
        seed_N=np.full(num_rows, seed, np.uint64),
        position_N=np.arange(first, first + num_rows),
    )


def _check_distribution(sampled: Sampled, probs_V: torch.Tensor) -> None:
    counts_V = np.bincount(sampled.token_ids_N, minlength=len(probs_V))
    possible = probs_V.numpy() > 0
    assert not counts_V[~possible].any()
    assert stats.chisquare(counts_V[possible], probs_V.numpy()[possible] * NUM_DRAWS).pvalue > 1e-3
    np.testing.assert_allclose(sampled.logprobs_N, probs_V.log().numpy()[sampled.token_ids_N], atol=1e-9)


def test_tokens_follow_the_softmax_at_the_temperature() -> None:
    logits_V = torch.tensor([0.0, 1.0, -2.0, 3.0, 0.5, -torch.inf])
    for temperature in (1.0, 0.5, 2.0):
        sampled = _sample(logits_V.expand(NUM_DRAWS, -1), temperature=temperature)
        _check_distribution(sampled, torch.softmax(logits_V.double() / temperature, -1))


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass_and_renormalises() -> None:
    probs_V = torch.tensor([0.1, 0.5, 0.05, 0.3, 0.05], dtype=torch.float64)
    sampled = _sample(probs_V.log().expand(NUM_DRAWS, -1), top_p=0.75)
    _check_distribution(sampled, torch.tensor([0, 0.5, 0, 0.3, 0], dtype=torch.float64) / 0.8)


def test_a_tiny_top_p_keeps_the_most_likely_token() -> None:
    sampled = _sample(torch.tensor([[0.0, 2.0, 1.0]]), top_p=1e-9)
    assert sampled.token_ids_N.tolist() == [1]
    assert sampled.logprobs_N.tolist() == [0.0]


def test_temperature_zero_takes_the_argmax_with_logprob_zero() -> None:
    sampled = _sample(torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]]), temperature=0.0)
    assert sampled.token_ids_N.tolist() == [1, 0]
    assert sampled.logprobs_N.tolist() == [0.0, 0.0]


def test_a_row_is_sampled_alike_in_every_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_NV = torch.randn(64, 50, generator=generator)
    seed_N = np.arange(64, dtype=np.uint64) * np.uint64(2**58)
    temperature_N = np.where(np.arange(64) % 3 == 0, 0.7, 1.0)
    top_p_N = np.where(np.arange(64) % 4 == 0, 0.9, 1.0)
    position_N = np.arange(64) % 7
    context_N = np.arange(64) // 2  # pairs of rows share a context
    together = sample(
        logits_NV[:32], context_N=context_N, temperature_N=temperature_N, top_p_N=top_p_N, seed_N=seed_N, position_N=position_N
    )
    for row in range(64):
        one = slice(row, row + 1)
        alone = sample(
            logits_NV[context_N[one]],
            context_N=np.zeros(1, np.int64),
            temperature_N=temperature_N[one],
            top_p_N=top_p_N[one],
            seed_N=seed_N[one],
            position_N=position_N[one],
        )
        assert alone.token_ids_N[0] == together.token_ids_N[row]
        assert abs(alone.logprobs_N[0] - together.logprobs_N[row]) < 1e-12


def test_uniform_numbers_are_uniform_along_positions_and_along_seeds() -> None:
    zeros = np.zeros(NUM_DRAWS, np.int64)
    along_positions = uniform(zeros.astype(np.uint64), np.arange(NUM_DRAWS))
    along_seeds = uniform(np.arange(NUM_DRAWS, dtype=np.uint64), zeros)
    for draws in (along_positions, along_seeds):
        assert stats.kstest(draws, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.02
    assert along_positions.min() >= 0 and along_positions.max() < 1


def test_logits_that_are_not_finite_show_in_the_logprob() -> None:
    for temperature in (0.0, 1.0):
        assert np.isnan(_sample(torch.full((1, 4), torch.nan), temperature=temperature).logprobs_N).all()
