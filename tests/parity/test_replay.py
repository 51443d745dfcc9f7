"""A forest with replayed routes equals each sample alone with the same routes, to rounding: loss, gradients, counts."""

# M trained tokens of all samples, F tokens of all samples laid end to end, T tokens of one sample, R records, L layers, E experts,
# K experts a token

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.attention.base import CausalAttend
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.decoder import Decoder
from trunkline.trainer.cispo import cispo_loss
from trunkline.trainer.logprobs import find_targets
from trunkline.trainer.replay import ReplayedRoutes, RoutePlan, plan_routes
from trunkline.trainer.walk import walk

torch.set_num_threads(1)

VOCAB, LAYERS, EXPERTS, TOP_K = 7, 2, 8, 3
TOLERANCE = 1e-12
GATE = "block_sparse_moe.gate.weight"


def make_decoder() -> Decoder:
    config = DecoderConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=12,
        num_layers=LAYERS,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        rotary_dim=4,
        max_positions=64,
        qk_norm="full",
        num_experts=EXPERTS,
        experts_per_token=TOP_K,
    )
    decoder = init_decoder(config, seed=7, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    for layer in decoder.model.layers:
        bias_E = layer.get_buffer("block_sparse_moe.e_score_correction_bias")
        bias_E += 0.1 * torch.randn(EXPERTS, generator=generator)
    return decoder


@dataclass
class Step:
    """Samples of one to three trunks that go on, part and end anywhere; every second one sampled from other weights."""

    seed: int
    is_recorded: bool = True

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        scores_RLE = rng.random((60, LAYERS, EXPERTS))
        self.routes_RLK = scores_RLE.argsort(axis=-1)[..., :TOP_K].astype(np.uint16)
        trunks = [rng.integers(0, 3, 12) for _ in range(rng.integers(1, 4))]
        self.sequences, routes, trained = [], [], []
        for _ in range(rng.integers(2, 7)):
            shared, fresh = int(rng.integers(2, 12)), int(rng.integers(1, 5))
            self.sequences.append(np.concatenate((trunks[rng.integers(len(trunks))][:shared], rng.integers(0, 3, fresh))))
            prompt = int(rng.integers(1, shared))
            place = np.arange(shared + fresh)
            trained.append(place >= prompt)
            routes.append(np.where(place >= prompt, place + 20 * int(rng.integers(0, 3)), -1))  # the same record at a place, or another's
            routes[-1][-1] = -1
        self.route_of_F = np.concatenate(routes) if self.is_recorded else np.full(sum(map(len, self.sequences)), -1)
        self.trained_F = np.concatenate(trained)
        size = int(self.trained_F.sum())
        self.old_M = torch.from_numpy(-rng.random(size))
        self.advantage_M = torch.from_numpy(rng.standard_normal(size))

    @cached_property
    def plan(self) -> RoutePlan:
        return plan_routes(self.sequences, self.route_of_F, self.routes_RLK, vocab_size=VOCAB)

    def loss(self, logp_m: torch.Tensor, place_m: torch.Tensor) -> torch.Tensor:
        return cispo_loss(logp_m, self.old_M[place_m], self.advantage_M[place_m], is_weight_cap=2.0).total / len(self.old_M)


class LoneRoute:
    """What one sample is told: its own records first, then those of the samples it is computed with, else the router's choice."""

    def __init__(self, rows_T: np.ndarray, routes_RLK: np.ndarray) -> None:
        self.is_recorded_T = torch.from_numpy(rows_T >= 0)
        self.routes_TLK = torch.from_numpy(routes_RLK[rows_T].astype(np.int64))
        self.counts_LE = torch.zeros(LAYERS, EXPERTS, dtype=torch.float64)

    def __call__(self, layer: int, preference_TE: torch.Tensor, top_k: int) -> torch.Tensor:
        own_TK = preference_TE.topk(top_k).indices
        experts_TK = torch.where(self.is_recorded_T.unsqueeze(1), self.routes_TLK[:, layer], own_TK)
        self.counts_LE[layer] += torch.bincount(experts_TK.flatten(), minlength=EXPERTS)
        return experts_TK


Gradients = dict[str, torch.Tensor]


def gradients(decoder: Decoder) -> Gradients:
    """Those collected since the last call."""
    found = {name: torch.zeros_like(one) if one.grad is None else one.grad for name, one in decoder.named_parameters()}
    decoder.zero_grad()
    return found


def forest_pass(
    decoder: Decoder, step: Step, *, max_tokens: int = 10_000, recompute: bool = False
) -> tuple[torch.Tensor, Gradients, ReplayedRoutes]:
    forest = step.plan.forest
    routes = ReplayedRoutes.load(step.plan, num_layers=LAYERS, num_experts=EXPERTS, top_k=TOP_K, device="cpu")
    targets = find_targets(forest, step.trained_F, np.ones(len(step.trained_F)))
    walked = walk(decoder, forest, targets, step.loss, max_tokens=max_tokens, recompute=recompute, route_for=routes.for_tokens)
    return step.loss(walked.logp_M, torch.arange(len(step.old_M))), gradients(decoder), routes


def lone_passes(decoder: Decoder, step: Step) -> tuple[list[torch.Tensor], list[Gradients], torch.Tensor]:
    losses, alone, counts_LE = [], [], torch.zeros(LAYERS, EXPERTS, dtype=torch.float64)
    first = place = 0
    for index, sequence in enumerate(step.sequences):
        own_T = step.route_of_F[first : first + len(sequence)]
        route = LoneRoute(np.where(own_T >= 0, own_T, step.plan.route_of_N[step.plan.forest.path(index)]), step.routes_RLK)
        ids_T, trained_T = torch.from_numpy(sequence), torch.from_numpy(step.trained_F[first : first + len(sequence)])
        hidden_TC = decoder(ids_T, torch.arange(len(ids_T)), CausalAttend(), route)
        logp_T = torch.log_softmax(decoder.logits(hidden_TC), dim=-1)[:-1].gather(1, ids_T[1:, None])[:, 0]
        logp_M = logp_T[trained_T[1:]]
        loss = step.loss(logp_M, torch.arange(place, place + len(logp_M)))
        loss.backward()
        losses.append(loss.detach())
        alone.append(gradients(decoder))
        counts_LE += route.counts_LE
        first, place = first + len(sequence), place + len(logp_M)
    return losses, alone, counts_LE


def norm(tensors: list[torch.Tensor]) -> float:
    return torch.cat([tensor.flatten() for tensor in tensors]).norm().item()


def assert_equal_to_lone_samples(step: Step, *, checkpoint_layers: bool = False, max_tokens: int = 10_000, recompute: bool = False) -> None:
    """Loss and gradients, of all parameters and of the gates alone, within TOLERANCE of the sum of the samples' norms."""
    decoder = make_decoder()
    losses, alone, counts_LE = lone_passes(decoder, step)
    decoder.checkpoint_layers = checkpoint_layers
    loss, merged, routes = forest_pass(decoder, step, max_tokens=max_tokens, recompute=recompute)
    gates = [name for name in merged if name.endswith(GATE)]
    assert len(gates) == LAYERS
    for names in (list(merged), gates):
        scale = sum(norm([one[name] for name in names]) for one in alone)
        assert norm([merged[name] - sum(one[name] for one in alone) for name in names]) <= TOLERANCE * scale
        assert scale > 0
    assert abs(loss - sum(losses)) <= TOLERANCE * sum(map(abs, losses))
    assert torch.equal(routes.counts_LE(np.bincount(step.plan.forest.paths_F)), counts_LE)


@pytest.mark.parametrize("checkpoint_layers", [False, True])
@settings(max_examples=25)
@given(seed=st.integers(0, 2**20))
def test_forest_with_replayed_routes_equals_lone_samples_in_fp64(checkpoint_layers: bool, seed: int) -> None:
    assert_equal_to_lone_samples(Step(seed), checkpoint_layers=checkpoint_layers)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**20), max_tokens=st.integers(1, 20), recompute=st.booleans(), checkpoint_layers=st.booleans())
def test_partitions_with_replayed_routes_equal_lone_samples_in_fp64(
    seed: int, max_tokens: int, recompute: bool, checkpoint_layers: bool
) -> None:
    assert_equal_to_lone_samples(Step(seed), checkpoint_layers=checkpoint_layers, max_tokens=max_tokens, recompute=recompute)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**20))
def test_forest_routed_by_the_trainer_alone_equals_lone_samples_in_fp64(seed: int) -> None:
    assert_equal_to_lone_samples(Step(seed, is_recorded=False))


def test_the_steps_of_these_tests_have_conflicts_and_misses() -> None:
    steps = [Step(seed) for seed in range(20)]
    assert sum(step.plan.num_conflicts > 0 for step in steps) > 10
    assert sum(step.plan.num_conflicts == 0 for step in steps) > 0
    _, _, routes = forest_pass(make_decoder(), steps[0])
    assert 0 < routes.mismatch.experts < routes.mismatch.sets <= 1


def test_recomputing_layers_changes_no_bit_of_the_gradient() -> None:
    decoder, step = make_decoder(), Step(3)
    _, kept, _ = forest_pass(decoder, step)
    decoder.checkpoint_layers = True
    _, recomputed, _ = forest_pass(decoder, step)
    assert all(torch.equal(kept[name], recomputed[name]) for name in kept)


def test_records_change_the_loss() -> None:
    decoder = make_decoder()
    loss, _, _ = forest_pass(decoder, Step(3))
    own_loss, _, _ = forest_pass(decoder, Step(3, is_recorded=False))
    assert abs(loss - own_loss) > 1e-6
