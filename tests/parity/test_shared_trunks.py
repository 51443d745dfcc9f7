"""Rows that share long contexts, nested or ragged, attend to them in common and still agree with one plain forward pass each."""

# T tokens of prompt and completion, V vocabulary

from __future__ import annotations

import random

import pytest
import torch

from trunkline.attention.base import CausalAttend
from trunkline.engine.local import LocalEngine
from trunkline.engine.step_attention import StepAttend
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.types import Generation, GenerationRequest, PolicyVersion, SamplingParams

TOLERANCE = 5e-5
DENSE = DecoderConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=64,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    qk_norm="head",
    max_positions=1024,
)
SPARSE = DecoderConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    qk_norm="full",
    rotary_dim=8,
    max_positions=1024,
    num_experts=8,
    experts_per_token=2,
)


def _prompt(rng: random.Random, length: int) -> tuple[int, ...]:
    return tuple(rng.randrange(50) for _ in range(length))


def _watched(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For every layer of every step, the number of calls over shared keys."""
    calls: list[int] = []
    attend = StepAttend.__call__

    def counting(self: StepAttend, *args: torch.Tensor) -> torch.Tensor:
        calls.append(len(self.shared))
        return attend(self, *args)

    monkeypatch.setattr(StepAttend, "__call__", counting)
    return calls


def _check(engine: LocalEngine, requests: list[GenerationRequest]) -> None:
    for request in requests:
        engine.add(request)
    done: dict[str, Generation] = {}
    while engine.has_work:
        done |= {one.request_id: one.generation for one in engine.step()}
    for request in requests:
        generation = done[request.request_id]
        ids_T = torch.tensor(request.token_ids + generation.token_ids)
        with torch.no_grad():
            logits_TV = engine.decoder.logits(engine.decoder(ids_T, torch.arange(len(ids_T)), CausalAttend())).double()
        first = len(request.token_ids)
        full_T = torch.log_softmax(logits_TV, -1)[first - 1 : -1].gather(1, ids_T[first:, None]).squeeze(1)
        assert generation.logprobs == pytest.approx(full_T.tolist(), abs=TOLERANCE)


def _engine(config: DecoderConfig = DENSE, **limits: int) -> LocalEngine:
    return LocalEngine.build(init_decoder(config, seed=3), version=PolicyVersion(1, 1), num_slots=8192, **limits)


@pytest.mark.parametrize("config", [DENSE, SPARSE], ids=["dense", "sparse"])
def test_one_prompt_of_many_rows(config: DecoderConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    engine, prompt = _engine(config), _prompt(rng, 313)
    calls = _watched(engine, monkeypatch)
    _check(engine, [GenerationRequest(str(n), prompt, SamplingParams(6 + n, seed=n)) for n in range(12)])
    assert max(calls) > 0


@pytest.mark.parametrize("max_step_tokens", [2048, 64], ids=["whole prompts", "chunked prompts"])
def test_a_system_prompt_over_tasks_over_ragged_turns(max_step_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(2)
    engine = _engine(max_step_tokens=max_step_tokens, max_batch=32)
    calls = _watched(engine, monkeypatch)
    system = _prompt(rng, 150)
    tasks = [system + _prompt(rng, length) for length in (3, 90, 170, 171)]
    turns = [task + _prompt(rng, rng.randrange(30)) for task in tasks for _ in range(6)]
    requests = [GenerationRequest(str(n), turn, SamplingParams(rng.randrange(2, 20), seed=n)) for n, turn in enumerate(turns)]
    _check(engine, requests)
    assert max(calls) > 1  # levels


def test_turns_that_continue_cached_contexts_see_their_trunk_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row's new tokens are many, and the trunk is found in the prefix tree."""
    rng = random.Random(3)
    engine, context = _engine(), _prompt(rng, 400)
    _check(engine, [GenerationRequest("first", context, SamplingParams(2, seed=1))])
    calls = _watched(engine, monkeypatch)
    requests = [GenerationRequest(str(n), context + _prompt(rng, 1 + 7 * n), SamplingParams(5, seed=n)) for n in range(8)]
    _check(engine, requests)
    assert calls[0] > 0  # in the step of their prompts already
    assert engine.scheduler.stats.num_reused >= 8 * 400
