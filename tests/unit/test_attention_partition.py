"""Partitions of a forest: each token once, within the limit, below one path."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.attention.dense import visibility_TB
from trunkline.attention.forest import Forest, build_forest
from trunkline.attention.partition import ancestors_of, partition_forest

sequence_lists = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12)


def agents(num_agents: int, *, prompt: int, length: int) -> Forest:
    rng = np.random.default_rng(0)
    trunk = rng.integers(0, 1000, prompt)
    return build_forest([np.concatenate((trunk, rng.integers(0, 1000, length))) for _ in range(num_agents)])


@settings(deadline=None)
@given(sequence_lists, st.integers(1, 40))
def test_every_token_is_in_one_partition_within_the_limit(sequences: list[list[int]], limit: int) -> None:
    forest = build_forest(sequences)
    partitions = partition_forest(forest, max_tokens=limit)
    assert sorted(np.concatenate([partition.index_P for partition in partitions]).tolist()) == list(range(forest.num_tokens))
    assert all(1 <= len(partition.index_P) <= limit for partition in partitions)


@settings(deadline=None)
@given(sequence_lists, st.integers(1, 40))
def test_a_partition_sees_what_its_tokens_see_in_the_forest(sequences: list[list[int]], limit: int) -> None:
    forest = build_forest(sequences)
    visible_NN = visibility_TB(forest).numpy()
    partitions = partition_forest(forest, max_tokens=limit)
    for place, partition in enumerate(partitions):
        index_P, ancestors_A = partition.index_P, ancestors_of(partitions, place)
        seen_PB = visibility_TB(partition.layout).numpy()
        np.testing.assert_array_equal(seen_PB, visible_NN[index_P][:, np.concatenate((ancestors_A, index_P))])
        np.testing.assert_array_equal(seen_PB.sum(axis=1), forest.positions_N[index_P] + 1)  # nothing is missing


@settings(deadline=None)
@given(sequence_lists, st.integers(1, 40))
def test_order_is_depth_first(sequences: list[list[int]], limit: int) -> None:
    above: list[int] = []
    for place, partition in enumerate(partition_forest(build_forest(sequences), max_tokens=limit)):
        while above and above[-1] != partition.parent:
            above.pop()
        assert above or partition.parent == -1
        above.append(place)


def test_a_forest_within_the_limit_is_one_partition_of_the_same_layout() -> None:
    forest = agents(3, prompt=20, length=10)
    (partition,) = partition_forest(forest, max_tokens=forest.num_tokens)
    assert partition.index_P.tolist() == list(range(50))
    assert partition.layout.node_start_U.tolist() == forest.node_start_U.tolist()
    assert partition.layout.node_subtree_end_U.tolist() == forest.node_subtree_end_U.tolist()
    assert len(partition.exposed_X) == 0


def test_siblings_share_partitions_below_their_trunk() -> None:
    partitions = partition_forest(agents(10, prompt=60, length=20), max_tokens=60)
    assert [len(partition.index_P) for partition in partitions] == [60, 60, 60, 60, 20]
    assert [partition.parent for partition in partitions] == [-1, 0, 0, 0, 0]
    assert all(partition.layout.num_ancestors == 60 for partition in partitions[1:])


def test_a_long_chain_is_cut_into_equal_pieces_each_one_node() -> None:
    partitions = partition_forest(build_forest([list(range(100))]), max_tokens=40)
    assert [len(partition.index_P) for partition in partitions] == [33, 33, 34]
    assert [partition.layout.num_ancestors for partition in partitions] == [0, 33, 66]
    assert [len(partition.layout.node_start_U) for partition in partitions] == [1, 1, 1]


def test_trees_too_small_for_a_pass_share_one() -> None:
    partitions = partition_forest(build_forest([[root, 100, 101] for root in range(30)]), max_tokens=30)
    assert [len(partition.index_P) for partition in partitions] == [30, 30, 30]


def test_drawing_of_the_module_is_what_is_built() -> None:
    forest = build_forest([(5, 5, 6, 7, 7, 7, 8, 8), (5, 5, 6, 7, 7, 7, 9), (5, 5, 6, 3, 3, 3, 4)])
    partitions = partition_forest(forest, max_tokens=5)
    assert [forest.token_ids_N[partition.index_P].tolist() for partition in partitions] == [
        [5, 5, 6],
        [3, 3, 3, 4],
        [7, 7, 7],
        [8, 8, 9],
    ]
    assert [partition.parent for partition in partitions] == [-1, 0, 0, 2]


def test_a_hundred_thousand_tokens_are_cut_within_a_second_of_cpu_time() -> None:
    rng = np.random.default_rng(1)
    sequences = []
    for _ in range(100):
        trunk = rng.integers(0, 1000, 300)
        sequences += [np.concatenate((trunk[: 300 - 10 * call], rng.integers(0, 1000, 40))) for call in range(20)]
    forest = build_forest(sequences)
    assert forest.num_tokens > 100_000
    assert len(forest.node_start_U) > 3_000
    started = time.process_time()
    partitions = partition_forest(forest, max_tokens=2_000)
    assert time.process_time() - started < 1.0
    assert len(partitions) <= 2 * forest.num_tokens / 2_000


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens=0"):
        partition_forest(build_forest([[1, 2]]), max_tokens=0)
