"""What the engine samples and records agrees with one plain forward pass over the whole sequence."""

# T tokens of prompt and completion, V vocabulary

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from trunkline.attention.base import CausalAttend
from trunkline.engine.local import LocalEngine
from trunkline.errors import EngineError, InfraError
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder
from trunkline.types import Generation, GenerationRequest, PolicyVersion, SamplingParams, VersionSpan, WeightRef
from trunkline.weights.files import publish

TOLERANCE = 5e-5
V1, V2 = PolicyVersion(1, 1), PolicyVersion(1, 2)
EQUAL_HEADS = DecoderConfig(
    vocab_size=50, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=4, num_kv_heads=4, head_dim=8, max_positions=160
)
GROUPED_HEADS = DecoderConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=64,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    qk_norm="head",
    tie_embeddings=True,
    max_positions=160,
)


def _engine(
    config: DecoderConfig = GROUPED_HEADS, *, num_slots: int = 4096, max_batch: int = 16, max_step_tokens: int = 256
) -> LocalEngine:
    decoder = init_decoder(config, seed=3)
    return LocalEngine.build(decoder, version=V1, num_slots=num_slots, max_batch=max_batch, max_step_tokens=max_step_tokens)


def _prompt(rng: random.Random, length: int) -> tuple[int, ...]:
    return tuple(rng.randrange(50) for _ in range(length))


def _drain(engine: LocalEngine) -> dict[str, Generation]:
    done: dict[str, Generation] = {}
    while engine.has_work:
        done |= {one.request_id: one.generation for one in engine.step()}
    return done


@torch.no_grad()
def _full_logprobs(decoder: Decoder, request: GenerationRequest, generation: Generation) -> list[float]:
    token_ids_T = torch.tensor(request.token_ids + generation.token_ids)
    hidden_TC = decoder(token_ids_T, torch.arange(len(token_ids_T)), CausalAttend())
    logits_TV = decoder.logits(hidden_TC).double() / request.sampling.temperature
    logprobs_TV = torch.log_softmax(logits_TV, -1)[len(request.token_ids) - 1 : -1]
    picked_T: list[float] = logprobs_TV.gather(1, token_ids_T[len(request.token_ids) :, None]).squeeze(1).tolist()
    return picked_T


def _check(engine: LocalEngine, request: GenerationRequest, generation: Generation) -> None:
    assert 0 < len(generation.token_ids) <= request.sampling.max_tokens
    assert generation.logprobs == pytest.approx(_full_logprobs(engine.decoder, request, generation), abs=TOLERANCE)


@pytest.mark.parametrize("config", [EQUAL_HEADS, GROUPED_HEADS], ids=["equal heads", "grouped heads"])
@pytest.mark.parametrize(
    "limits",
    [{}, {"num_slots": 300, "max_batch": 8}, {"max_batch": 4, "max_step_tokens": 16}],
    ids=["roomy", "under eviction", "chunked prompts"],
)
def test_logprobs_agree_under_random_arrival_of_conversations(config: DecoderConfig, limits: dict[str, int]) -> None:
    """Conversations over few shared beginnings arrive at random and go on from what was sampled."""
    rng = random.Random(1)
    engine = _engine(config, **limits)
    beginnings = [_prompt(rng, length) for length in (0, 1, 20, 45)]
    open_requests: dict[str, GenerationRequest] = {}
    num_checked = num_started = 0
    while num_started < 60 or open_requests:
        for _ in range(rng.randrange(4) if num_started < 60 else 0):
            num_started += 1
            token_ids = rng.choice(beginnings) + _prompt(rng, rng.randrange(1, 30))
            sampling = SamplingParams(rng.randrange(1, 25), rng.choice((0.6, 1.0)), seed=rng.getrandbits(64), stop_token_ids=(7,))
            open_requests[str(num_started)] = GenerationRequest(str(num_started), token_ids, sampling)
            engine.add(open_requests[str(num_started)])
        for one in engine.step():
            request = open_requests.pop(one.request_id)
            _check(engine, request, one.generation)
            num_checked += 1
            continued = request.token_ids + one.generation.token_ids + _prompt(rng, rng.randrange(1, 12))
            if rng.random() < 0.6 and len(continued) < 130:
                open_requests[request.request_id] = GenerationRequest(request.request_id, continued, request.sampling)
                engine.add(open_requests[request.request_id])
    assert num_checked > 100
    scheduler = engine.scheduler
    assert len(scheduler.free) + scheduler.tree.num_evictable == scheduler.num_slots
    assert scheduler.stats.num_reused > 0


def test_a_completion_does_not_depend_on_the_batch_around_it() -> None:
    rng = random.Random(2)
    requests = [
        GenerationRequest(str(index), _prompt(rng, rng.randrange(1, 60)), SamplingParams(20, seed=rng.getrandbits(64)))
        for index in range(12)
    ]
    together = _engine()
    for request in requests:
        together.add(request)
    expected = _drain(together)
    for request in requests:
        alone = _engine(max_batch=1, max_step_tokens=8)
        alone.add(request)
        assert _drain(alone)[request.request_id].token_ids == expected[request.request_id].token_ids


def test_attempts_at_one_task_are_computed_together_where_they_agree_and_sample_as_if_alone() -> None:
    """A peaked policy, as trained ones are: most attempts agree for many tokens."""
    rng = random.Random(4)
    engine = _engine()
    prompt = _prompt(rng, 40)
    requests = [GenerationRequest(str(n), prompt, SamplingParams(24, temperature=0.3, seed=rng.getrandbits(64))) for n in range(12)]
    finished: dict[str, Generation] = {}
    for number, request in enumerate(requests):
        engine.add(request)
        for _ in range(number % 3):  # some arrive together, some later
            finished |= {one.request_id: one.generation for one in engine.step()}
    finished |= _drain(engine)
    for request in requests:
        _check(engine, request, finished[request.request_id])
        alone = _engine()
        alone.add(request)
        assert _drain(alone)[request.request_id].token_ids == finished[request.request_id].token_ids
    distinct = {finished[request.request_id].token_ids[:length] for request in requests for length in range(1, 24)}
    assert len(distinct) < 12 * 23
    assert engine.scheduler.stats.num_computed == 40 + len(distinct)


def test_greedy_takes_the_argmax_of_the_full_forward() -> None:
    engine = _engine()
    request = GenerationRequest("a", (4, 8, 15, 16, 23, 42), SamplingParams(10, temperature=0.0))
    engine.add(request)
    generation = _drain(engine)["a"]
    token_ids_T = torch.tensor(request.token_ids + generation.token_ids)
    logits_TV = engine.decoder.logits(engine.decoder(token_ids_T, torch.arange(len(token_ids_T)), CausalAttend()))
    assert logits_TV.argmax(-1)[5:-1].tolist() == list(generation.token_ids)
    assert set(generation.logprobs) == {0.0}


def test_a_restricted_distribution_is_recorded_as_sampled() -> None:
    engine = _engine()
    request = GenerationRequest("a", (4, 8, 15), SamplingParams(10, top_p=0.5, seed=5))
    engine.add(request)
    generation = _drain(engine)["a"]
    whole = _full_logprobs(engine.decoder, request, generation)
    # Renormalised over at least half of the mass, so between log p and log p + log 2.
    assert all(full - TOLERANCE <= recorded <= full + 0.6932 for recorded, full in zip(generation.logprobs, whole, strict=True))


def _publish(tmp_path: Path, version: PolicyVersion, seed: int) -> WeightRef:
    return publish(init_decoder(GROUPED_HEADS, seed=seed).state_dict(), version, tmp_path)


def test_after_an_update_new_requests_sample_from_the_new_weights_alone(tmp_path: Path) -> None:
    engine = _engine()
    before = GenerationRequest("before", (4, 8, 15, 16, 23), SamplingParams(30, seed=1))
    engine.add(before)
    for _ in range(5):
        engine.step()
    engine.update_weights(_publish(tmp_path, V2, seed=4))
    after = GenerationRequest("after", before.token_ids, SamplingParams(30, seed=2))
    engine.add(after)
    done = _drain(engine)
    assert done["before"].version_spans == (VersionSpan(0, 5, V1), VersionSpan(5, 30, V2))
    assert done["after"].version_spans == (VersionSpan(0, 30, V2),)
    _check(engine, after, done["after"])
    follow_up = GenerationRequest("again", before.token_ids + done["before"].token_ids, SamplingParams(10, seed=3))
    engine.add(follow_up)
    _check(engine, follow_up, _drain(engine)["again"])  # nothing of the mixed keys was reused


def test_a_paused_engine_keeps_its_requests_and_goes_on_where_it_was() -> None:
    engine, undisturbed = _engine(), _engine()
    request = GenerationRequest("a", (4, 8, 15), SamplingParams(12, seed=9))
    for each in (engine, undisturbed):
        each.add(request)
        each.step()
    engine.is_paused = True
    assert engine.step() == [] and not engine.has_work
    engine.is_paused = False
    assert _drain(engine) == _drain(undisturbed)


def test_weights_that_do_not_fit_or_are_not_there_leave_the_engine_as_it_was(tmp_path: Path) -> None:
    engine = _engine()
    before = {name: tensor.clone() for name, tensor in engine.decoder.state_dict().items()}
    with pytest.raises(EngineError, match="does not fit"):
        engine.update_weights(publish(init_decoder(EQUAL_HEADS, seed=1).state_dict(), V2, tmp_path))
    with pytest.raises(InfraError, match="missing"):
        engine.update_weights(WeightRef(tmp_path / "missing.safetensors", V2))
    assert engine.scheduler.version == V1
    assert all(torch.equal(before[name], tensor) for name, tensor in engine.decoder.state_dict().items())


def test_diverged_weights_are_named_as_the_cause(tmp_path: Path) -> None:
    engine = _engine()
    broken = {name: tensor * torch.nan for name, tensor in engine.decoder.state_dict().items()}
    engine.update_weights(publish(broken, V2, tmp_path))
    engine.add(GenerationRequest("a", (1, 2), SamplingParams(2)))
    with pytest.raises(EngineError, match=r"policy version 1\.2 .* diverged"):
        engine.step()


def test_token_ids_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(EngineError, match=r"0\.\.49, got \[50, -1\]"):
        _engine().add(GenerationRequest("a", (1, 50, -1), SamplingParams(2)))
