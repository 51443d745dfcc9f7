"""The routes that the engine reports are those of a plain forward pass over the same tokens: exactly, as sets of experts (fp64)."""

# T tokens of prompt and completion, L layers, E experts, K experts a token and layer

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from trunkline.attention.base import CausalAttend
from trunkline.engine.kv_cache import default_num_slots
from trunkline.engine.local import LocalEngine
from trunkline.engine.route_memory import ReturnRoutes
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder
from trunkline.models.routing import Recording
from trunkline.types import Generation, GenerationRequest, PolicyVersion, RoutedExperts, SamplingParams
from trunkline.weights.files import publish

V1, V2 = PolicyVersion(1, 1), PolicyVersion(1, 2)
SHAPE = {"vocab_size": 50, "hidden_size": 32, "num_layers": 3, "num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "max_positions": 160}
SPARSE = DecoderConfig(**SHAPE, intermediate_size=16, qk_norm="full", rotary_dim=8, num_experts=24, experts_per_token=4)
DENSE = DecoderConfig(**SHAPE, intermediate_size=64)


def _decoder(seed: int = 3) -> Decoder:
    """fp64: no two experts are so close that the order of a sum decides between them. Biased, so that the bias counts."""
    decoder = init_decoder(SPARSE, seed=seed, dtype=torch.float64)
    for layer in decoder.model.layers:
        layer.block_sparse_moe.e_score_correction_bias.uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(seed))
    return decoder


def _engine(
    *, return_routes: ReturnRoutes = "sampled", num_slots: int = 4096, max_batch: int = 16, max_step_tokens: int = 256
) -> LocalEngine:
    limits = {"num_slots": num_slots, "max_batch": max_batch, "max_step_tokens": max_step_tokens}
    return LocalEngine.build(_decoder(), version=V1, return_routes=return_routes, **limits)


def _prompt(rng: random.Random, length: int) -> tuple[int, ...]:
    return tuple(rng.randrange(50) for _ in range(length))


def _drain(engine: LocalEngine) -> dict[str, Generation]:
    done: dict[str, Generation] = {}
    while engine.has_work:
        done |= {one.request_id: one.generation for one in engine.step()}
    return done


@torch.no_grad()
def _full_routes(decoder: Decoder, token_ids: tuple[int, ...]) -> NDArray[np.uint16]:
    recording = Recording(len(token_ids), SPARSE.num_layers, SPARSE.experts_per_token)
    decoder(torch.tensor(token_ids), torch.arange(len(token_ids)), CausalAttend(), recording)
    return np.sort(recording.experts_TLK.numpy(), axis=-1)


def _reported(routes: RoutedExperts | None) -> NDArray[np.uint16]:
    assert routes is not None
    return np.sort(np.frombuffer(routes.data, "<u2").reshape(routes.num_tokens, routes.num_layers, routes.top_k), axis=-1)


def _check(engine: LocalEngine, request: GenerationRequest, generation: Generation, *, first: int) -> None:
    """From `first` on, every token but the last."""
    assert generation.routes is not None and generation.routes.first == first
    token_ids = request.token_ids + generation.token_ids
    assert np.array_equal(_reported(generation.routes), _full_routes(engine.decoder, token_ids)[first:-1])


@pytest.mark.parametrize("return_routes", ["sampled", "all"])
@pytest.mark.parametrize(
    "limits",
    [{}, {"num_slots": 300, "max_batch": 8}, {"max_batch": 4, "max_step_tokens": 16}],
    ids=["roomy", "under eviction", "chunked prompts"],
)
def test_routes_agree_under_random_arrival_of_conversations(return_routes: ReturnRoutes, limits: dict[str, int]) -> None:
    """Conversations over few shared beginnings arrive at random and go on from what was sampled; prefixes are found again."""
    rng = random.Random(1)
    engine = _engine(return_routes=return_routes, **limits)
    beginnings = [_prompt(rng, length) for length in (0, 1, 20, 45)]
    open_requests: dict[str, GenerationRequest] = {}
    num_checked = num_started = 0
    while num_started < 20 or open_requests:
        for _ in range(rng.randrange(4) if num_started < 20 else 0):
            num_started += 1
            sampling = SamplingParams(rng.randrange(1, 25), rng.choice((0.3, 1.0)), seed=rng.getrandbits(64), stop_token_ids=(7,))
            request = GenerationRequest(str(num_started), rng.choice(beginnings) + _prompt(rng, rng.randrange(1, 30)), sampling)
            open_requests[request.request_id] = request
            engine.add(request)
        for one in engine.step():
            request = open_requests.pop(one.request_id)
            _check(engine, request, one.generation, first=0 if return_routes == "all" else len(request.token_ids))
            num_checked += 1
            continued = request.token_ids + one.generation.token_ids + _prompt(rng, rng.randrange(1, 12))
            if rng.random() < 0.6 and len(continued) < 130:
                open_requests[request.request_id] = GenerationRequest(request.request_id, continued, request.sampling)
                engine.add(open_requests[request.request_id])
    assert num_checked > 30
    assert engine.scheduler.stats.num_reused > 0


def test_samples_of_one_prompt_report_the_routes_of_what_was_computed_once_for_all() -> None:
    """At a low temperature they also agree for some sampled tokens, which one row computes for the others."""
    rng = random.Random(4)
    engine = _engine(return_routes="all")
    prompt = _prompt(rng, 40)
    requests = [GenerationRequest(str(n), prompt, SamplingParams(12, temperature=0.2, seed=rng.getrandbits(64))) for n in range(6)]
    for request in requests:
        engine.add(request)
    done = _drain(engine)
    assert engine.scheduler.stats.num_merged > 0
    for request in requests:
        _check(engine, request, done[request.request_id], first=0)
    prompts = {routes.rows(0, 40) for routes in (done[request.request_id].routes for request in requests) if routes is not None}
    assert len(prompts) == 1


@pytest.mark.parametrize(("return_routes", "first"), [("sampled", 20), ("all", 0)])
def test_an_aborted_call_reports_what_was_computed_until_then(return_routes: ReturnRoutes, first: int) -> None:
    engine = _engine(return_routes=return_routes, max_step_tokens=16)
    request = GenerationRequest("a", _prompt(random.Random(5), 20), SamplingParams(24))
    engine.add(request)
    for _ in range(4):
        engine.step()
    (finished,) = engine.abort(["a"])
    assert len(finished.generation.token_ids) == 3
    _check(engine, request, finished.generation, first=first)
    engine.add(GenerationRequest("b", _prompt(random.Random(6), 20), SamplingParams(24)))
    engine.step()
    (finished,) = engine.abort(["b"])  # in the middle of its prompt
    assert finished.generation.routes is not None
    assert (finished.generation.routes.first, finished.generation.routes.num_tokens) == (first, 0 if first else 16)


class _CachedAttend:
    """One sequence in several forward passes, each sees the keys of all before it, whichever weights made them."""

    def __init__(self) -> None:
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def __call__(self, layer: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        before = len(self.keys.get(layer, ()))
        for seen, new in ((self.keys, k_TKD), (self.values, v_TKD)):
            seen[layer] = torch.cat((seen[layer], new)) if before else new
        padded_SHD = torch.cat((q_THD.new_zeros((before, *q_THD.shape[1:])), q_THD))
        return CausalAttend()(layer, padded_SHD, self.keys[layer], self.values[layer])[before:]


@torch.no_grad()
def test_a_call_that_lives_through_an_update_reports_the_routes_that_it_was_sampled_with(tmp_path: Path) -> None:
    """Before it those of the old weights, after it those of the new weights on the keys that are there."""
    engine, old, new = _engine(return_routes="all"), _decoder(), _decoder(seed=4)
    before = GenerationRequest("before", _prompt(random.Random(7), 12), SamplingParams(30, seed=1))
    engine.add(before)
    for _ in range(6):
        engine.step()
    engine.update_weights(publish(new.state_dict(), V2, tmp_path))
    after = GenerationRequest("after", before.token_ids, SamplingParams(10, seed=2))
    engine.add(after)
    done = _drain(engine)
    _check(engine, after, done["after"], first=0)  # nothing of the old weights was reused
    generation = done["before"]
    assert [span.version for span in generation.version_spans] == [V1, V2]
    token_ids = torch.tensor((before.token_ids + generation.token_ids)[:-1])
    num_old = len(before.token_ids) + generation.version_spans[1].start - 1  # the last token sampled before it was computed after it
    attend, pieces = _CachedAttend(), []
    for decoder, places in ((old, torch.arange(num_old)), (new, torch.arange(num_old, len(token_ids)))):
        recording = Recording(len(places), SPARSE.num_layers, SPARSE.experts_per_token)
        decoder(token_ids[places], places, attend, recording)
        pieces.append(np.sort(recording.experts_TLK.numpy(), axis=-1))
    assert np.array_equal(_reported(generation.routes), np.concatenate(pieces))


def test_dense_models_and_engines_told_so_report_none() -> None:
    dense = LocalEngine.build(init_decoder(DENSE, seed=3), version=V1, num_slots=256, return_routes="all")
    for engine in (dense, _engine(return_routes="none")):
        engine.add(GenerationRequest("a", (4, 8, 15), SamplingParams(3)))
        assert _drain(engine)["a"].routes is None
        assert engine.scheduler.routes is None


def test_default_slots_leave_room_for_routes() -> None:
    wide = DecoderConfig(**{**SHAPE, "max_positions": 8}, intermediate_size=16, qk_norm="full", num_experts=300, experts_per_token=100)
    bytes_a_slot = 3 * 2 * 2 * 16 * 4 + 32 * 4 + 3 * 100 * 2
    assert default_num_slots(wide, torch.float32) == min(262_144, 512 * 2**20 // bytes_a_slot)
