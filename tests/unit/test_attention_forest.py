"""The layout of a prefix forest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.attention.forest import Forest, build_forest

sequence_lists = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=10), min_size=1, max_size=9)


def ancestors_or_self(forest: Forest, token: int) -> set[int]:
    found = set()
    while token >= 0:
        found.add(token)
        token = int(forest.parent_N[token])
    return found


@settings(deadline=None)
@given(sequence_lists)
def test_each_distinct_context_is_stored_once(sequences: list[list[int]]) -> None:
    contexts = {tuple(sequence[: end + 1]) for sequence in sequences for end in range(len(sequence))}
    forest = build_forest(sequences)
    assert forest.num_tokens == len(contexts)
    assert forest.num_flat_tokens == sum(map(len, sequences))


@settings(deadline=None)
@given(sequence_lists)
def test_paths_spell_the_samples_in_the_order_given(sequences: list[list[int]]) -> None:
    forest = build_forest(sequences)
    for sample, sequence in enumerate(sequences):
        path = forest.path(sample)
        assert forest.token_ids_N[path].tolist() == sequence
        assert forest.positions_N[path].tolist() == list(range(len(sequence)))
        assert forest.parent_N[path].tolist() == [-1, *path[:-1].tolist()]


@settings(deadline=None)
@given(sequence_lists)
def test_visible_keys_are_the_ancestors_and_self(sequences: list[list[int]]) -> None:
    forest = build_forest(sequences)
    subtree_end_N = forest.subtree_end_N()
    for query in range(forest.num_tokens):
        visible = {key for key in range(query + 1) if query < subtree_end_N[key]}
        assert visible == ancestors_or_self(forest, query)


@settings(deadline=None)
@given(sequence_lists)
def test_nodes_end_only_at_leaves_and_real_branches(sequences: list[list[int]]) -> None:
    forest = build_forest(sequences)
    assert forest.node_start_U.tolist() == [0, *forest.node_end_U[:-1].tolist()]
    for end, subtree_end in zip(forest.node_end_U, forest.node_subtree_end_U, strict=True):
        num_children = int((forest.parent_N == end - 1).sum())
        assert num_children != 1
        assert (num_children == 0) == (end == subtree_end)


def test_sample_that_ends_inside_a_chain_cuts_nothing() -> None:
    forest = build_forest([[1, 2, 3, 4, 5], [1, 2, 3], [1]])
    assert forest.node_start_U.tolist() == [0]
    assert forest.node_subtree_end_U.tolist() == [5]


def test_drawing_of_the_module_is_what_is_built() -> None:
    forest = build_forest([(5, 6, 7, 8), (5, 6, 9)])
    assert forest.parent_N.tolist() == [-1, 0, 1, 2, 1]
    assert forest.node_start_U.tolist() == [0, 2, 4]
    assert forest.node_subtree_end_U.tolist() == [5, 4, 5]


def test_large_token_ids_are_told_apart() -> None:
    forest = build_forest([[256, 1], [1, 256], [2**32 - 1], [65536]])
    assert forest.num_tokens == 6


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "at least one token sequence"),
        ([[1], []], "sequence 1 of 2"),
        ([[-3]], "got -3"),
        ([np.zeros((2, 2), dtype=np.int64)], "flat run"),
    ],
)
def test_impossible_input_is_refused_with_its_value(sequences: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_forest(sequences)
