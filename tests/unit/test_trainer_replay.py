"""One route per forest token: where samples share it, where they part, and what a forward pass is told."""

# N forest tokens, F tokens of all samples laid end to end, R records, L layers, E experts, K experts a token

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trunkline.attention.forest import build_forest
from trunkline.errors import TrainerError
from trunkline.trainer.replay import ReplayedRoutes, RoutePlan, plan_routes

VOCAB, LAYERS, EXPERTS, TOP_K = 3, 2, 5, 2

# The same two sets of experts in two orders, then others.
ROUTES_RLK = np.array(
    [[[0, 1], [2, 3]], [[1, 0], [3, 2]], [[0, 1], [2, 4]], [[4, 1], [2, 3]], [[2, 1], [3, 0]], [[3, 4], [1, 0]]], dtype=np.uint16
)

Sample = list[tuple[int, int]]  # (token id, row of ROUTES_RLK or -1)
Key = tuple[int, tuple[frozenset[int], ...] | None]


def content(row: int) -> tuple[frozenset[int], ...] | None:
    return None if row < 0 else tuple(frozenset(experts) for experts in ROUTES_RLK[row].tolist())


def plan(samples: list[Sample]) -> RoutePlan:
    sequences = [np.array([token for token, _ in sample]) for sample in samples]
    return plan_routes(sequences, np.array([row for sample in samples for _, row in sample]), ROUTES_RLK, vocab_size=VOCAB)


@dataclass
class Trie:
    """The definition, one sample after the other: a child per token and record; the first child's is whatever comes first."""

    children: dict[int, list[Trie]] = field(default_factory=dict)
    record: tuple[frozenset[int], ...] | None = None

    def child(self, token: int, record: tuple[frozenset[int], ...] | None) -> Trie:
        same_token = self.children.setdefault(token, [])
        if same_token and record is None:
            return same_token[0]
        found = next((child for child in same_token if child.record == record), None)
        if found is None and same_token and same_token[0].record is None:
            found = same_token[0]
        if found is None:
            found = Trie()
            same_token.append(found)
        found.record = record
        return found

    @property
    def size(self) -> int:
        return sum(1 + child.size for same_token in self.children.values() for child in same_token)


def paths_of_trie(samples: list[Sample]) -> tuple[list[list[Trie]], int]:
    root = Trie()
    paths = []
    for sample in samples:
        path = [root]
        for token, row in sample:
            path.append(path[-1].child(token, content(row)))
        paths.append(path[1:])
    return paths, root.size


samples_of_a_step = st.lists(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([-1, -1, 0, 0, 0, 1, 2, 3])), min_size=1, max_size=7), min_size=1, max_size=7
)
# The last sample has no record below the split: it follows who is with it there, not the first of all.
follows_its_own_branch: list[Sample] = [[(0, 0), (1, 0), (1, 0)], [(0, 2), (1, 3), (1, 3)], [(0, 2), (1, -1), (1, 0)]]
waits_twice: list[Sample] = [
    [(0, 0), (0, 0), (0, 0)],
    [(0, 2), (0, 0), (0, 0)],
    [(0, 2), (0, 2), (0, 2)],
    [(0, 2), (0, -1), (0, 2)],
    [(0, 2), (0, 2), (0, -1)],
]


@settings(max_examples=200)
@given(samples_of_a_step)
@example(follows_its_own_branch)
@example(waits_twice)
def test_every_recorded_token_finds_its_own_record(samples: list[Sample]) -> None:
    found = plan(samples)
    for index, sample in enumerate(samples):
        path = found.forest.path(index)
        assert found.forest.token_ids_N[path].tolist() == [token for token, _ in sample]
        for place, (_, row) in zip(path, sample, strict=True):
            if row >= 0:
                assert content(found.route_of_N[place]) == content(row)


@settings(max_examples=200)
@given(samples_of_a_step)
@example(follows_its_own_branch)
@example(waits_twice)
def test_samples_part_only_where_tokens_or_records_do(samples: list[Sample]) -> None:
    """Sample by sample the same trie as the definition's: nothing is split without need, nothing computed twice."""
    found = plan(samples)
    paths, size = paths_of_trie(samples)
    assert found.forest.num_tokens == size
    pairs = {
        (place, id(node)) for index, path in enumerate(paths) for place, node in zip(found.forest.path(index).tolist(), path, strict=True)
    }
    assert len(pairs) == size
    contexts = zip(found.forest.parent_N.tolist(), found.forest.token_ids_N.tolist(), map(content, found.route_of_N), strict=True)
    assert len(set(contexts)) == size


@settings(max_examples=200)
@given(samples_of_a_step)
@example(follows_its_own_branch)
def test_lost_sharing_is_what_the_records_cost(samples: list[Sample]) -> None:
    found = plan(samples)
    unsplit = build_forest([[token for token, _ in sample] for sample in samples])
    assert found.num_split_tokens == found.forest.num_tokens - unsplit.num_tokens
    assert (found.num_conflicts > 0) == (found.num_split_tokens > 0)


@given(samples_of_a_step)
def test_records_that_agree_leave_the_forest_as_it_is(samples: list[Sample]) -> None:
    agreeing = [[(token, min(row, depth % 2)) for depth, (token, row) in enumerate(sample)] for sample in samples]
    found, unsplit = plan(agreeing), build_forest([[token for token, _ in sample] for sample in samples])
    for name, array in vars(unsplit).items():
        assert np.array_equal(getattr(found.forest, name), array), name
    assert (found.num_conflicts, found.num_split_tokens) == (0, 0)


def test_a_sample_without_a_record_follows_the_first_that_has_one() -> None:
    found = plan([[(0, -1), (1, -1)], [(0, 3), (1, -1)], [(0, 0), (1, -1)]])
    assert found.forest.path(0).tolist() == found.forest.path(1).tolist() == [0, 1]
    assert found.forest.path(2).tolist() == [2, 3]
    assert found.route_of_N.tolist() == [3, -1, 0, -1]
    assert (found.num_conflicts, found.num_split_tokens) == (1, 2)


def test_records_that_agree_below_a_split_part_no_further() -> None:
    found = plan([[(0, 0), (1, 3), (2, 0)], [(0, 2), (1, 3), (2, 2)], [(0, 2), (1, 3), (2, 2)]])
    assert found.forest.num_tokens == 6
    assert found.forest.path(1).tolist() == found.forest.path(2).tolist()
    assert found.num_conflicts == 1


def test_more_disagreeing_samples_than_ids_can_tell_apart_are_refused() -> None:
    sequences = [np.array([5]), np.array([5])]
    with pytest.raises(TrainerError, match="2 samples share a context.* at most 1 can be told apart"):
        plan_routes(sequences, np.array([0, 2]), ROUTES_RLK, vocab_size=2**32 - 1)


def load(found: RoutePlan) -> ReplayedRoutes:
    return ReplayedRoutes.load(found, num_layers=LAYERS, num_experts=EXPERTS, top_k=TOP_K, device="cpu")


def preferences(num_tokens: int, seed: int) -> torch.Tensor:
    return torch.rand(num_tokens, EXPERTS, generator=torch.Generator().manual_seed(seed))


def sets(experts_TK: torch.Tensor) -> list[set[int]]:
    return [set(experts) for experts in experts_TK.tolist()]


chain: list[Sample] = [[(0, -1), (1, 0), (2, -1), (0, 3)]]


def test_recorded_tokens_take_their_record_and_others_the_routers_choice() -> None:
    routes = load(plan(chain))
    preference_TE = preferences(4, 0)
    own = sets(preference_TE.topk(TOP_K).indices)
    found = [sets(routes.for_tokens(np.arange(4))(layer, preference_TE, TOP_K)) for layer in range(LAYERS)]
    assert found[0] == [own[0], {0, 1}, own[2], {4, 1}]
    assert found[1] == [own[0], {2, 3}, own[2], {2, 3}]


def test_a_layer_computed_again_is_routed_as_before_whatever_the_router_prefers_now() -> None:
    routes = load(plan(chain))
    whole = routes.for_tokens(np.arange(4))
    first = whole(0, preferences(4, 0), TOP_K)
    assert torch.equal(whole(0, preferences(4, 1), TOP_K), first)
    assert torch.equal(routes.for_tokens(np.array([2, 3]))(0, preferences(2, 2), TOP_K), first[2:])


def test_tokens_of_several_parts_are_routed_by_their_place_in_the_forest() -> None:
    routes, whole = load(plan(chain)), load(plan(chain))
    preference_TE = preferences(4, 0)
    expected = whole.for_tokens(np.arange(4))(1, preference_TE, TOP_K)
    for part in (np.array([3, 1]), np.array([0, 2, 3])):
        assert torch.equal(routes.for_tokens(part)(1, preference_TE[part], TOP_K), expected[part])
    assert routes.mismatch == whole.mismatch


def test_mismatch_counts_sets_and_experts_of_recorded_tokens_on_first_sight() -> None:
    routes = load(plan(chain))
    assert routes.mismatch == (0.0, 0.0)
    prefers_0_and_1 = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]]).repeat(4, 1)
    for layer in range(LAYERS):  # records: {0, 1} and {4, 1}, then {2, 3} twice
        routes.for_tokens(np.arange(4))(layer, prefers_0_and_1, TOP_K)
        routes.for_tokens(np.arange(4))(layer, -prefers_0_and_1, TOP_K)
    assert routes.mismatch.sets == 3 / 4
    assert routes.mismatch.experts == pytest.approx(5 / 8)


@settings(max_examples=50)
@given(samples_of_a_step)
def test_counts_are_those_of_the_samples_one_by_one(samples: list[Sample]) -> None:
    found = plan(samples)
    forest, routes = found.forest, load(found)
    experts_LNK = torch.stack(
        [routes.for_tokens(np.arange(forest.num_tokens))(layer, preferences(forest.num_tokens, layer), TOP_K) for layer in range(LAYERS)]
    )
    expected = torch.stack([torch.bincount(layer[forest.paths_F].flatten(), minlength=EXPERTS) for layer in experts_LNK])
    assert torch.equal(routes.counts_LE(np.bincount(forest.paths_F)), expected.double())


def test_without_any_record_the_router_decides_and_is_counted() -> None:
    found = plan_routes([np.array([0, 1])], np.array([-1, -1]), np.zeros((0, 0, 0), np.uint16), vocab_size=VOCAB)
    routes, preference_TE = load(found), preferences(2, 0)
    for layer in range(LAYERS):
        assert sets(routes.for_tokens(np.arange(2))(layer, preference_TE, TOP_K)) == sets(preference_TE.topk(TOP_K).indices)
    assert routes.counts_LE(np.array([1, 1])).sum(1).tolist() == [2 * TOP_K] * LAYERS
    assert routes.mismatch == (0.0, 0.0)


@pytest.mark.parametrize(
    ("num_layers", "num_experts", "top_k", "message"),
    [
        (3, 5, 2, "have 2 layers x 2 experts, the model has 3 x 2"),
        (2, 5, 1, "the model has 2 x 1"),
        (2, 4, 2, "names expert 4, the model has 4"),
        (2, 2**15 + 1, 2, "at most 32768 experts"),
    ],
)
def test_records_of_another_model_are_refused(num_layers: int, num_experts: int, top_k: int, message: str) -> None:
    with pytest.raises(TrainerError, match=message):
        ReplayedRoutes.load(plan(chain), num_layers=num_layers, num_experts=num_experts, top_k=top_k, device="cpu")


def test_a_record_that_names_an_expert_twice_is_refused() -> None:
    found = plan_routes([np.array([0])], np.array([0]), np.array([[[0, 1], [3, 3]]], np.uint16), vocab_size=VOCAB)
    with pytest.raises(TrainerError, match=r"layer 1 names an expert twice: \[3, 3\]"):
        load(found)
