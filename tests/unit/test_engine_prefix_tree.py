"""The prefix tree over KV slots: what is cached, who holds it, what goes first."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.engine.prefix_tree import Node, PrefixTree
from trunkline.engine.slots import FreeSlots, Ints
from trunkline.types import PolicyVersion

V1, V2 = PolicyVersion(1, 1), PolicyVersion(1, 2)


def _cache(tree: PrefixTree, free: FreeSlots, token_ids: tuple[int, ...], version: PolicyVersion = V1) -> list[int]:
    """Caches a sequence without leaving a reference; returns the slots of all its tokens."""
    match = tree.match(version, token_ids)
    fresh = free.take(len(token_ids) - len(match.slots))
    tree.insert(match.node, token_ids[len(match.slots) :], fresh)
    tree.release(match.node)
    return [*match.slots.tolist(), *fresh.tolist()]


def _cached(tree: PrefixTree, token_ids: tuple[int, ...], version: PolicyVersion = V1) -> list[int]:
    match = tree.match(version, token_ids)
    tree.release(match.node)
    return match.slots.tolist()


def test_a_match_ends_at_the_first_token_that_differs() -> None:
    free = FreeSlots(16)
    tree = PrefixTree(free)
    slots = _cache(tree, free, (1, 2, 3, 4, 5))
    assert _cached(tree, (1, 2, 3, 9)) == slots[:3]
    assert _cached(tree, (1, 2, 3, 4, 5, 6)) == slots
    assert _cached(tree, (2,)) == []


def test_a_reference_survives_a_split_of_its_node() -> None:
    free = FreeSlots(16)
    tree = PrefixTree(free)
    slots = _cache(tree, free, (1, 2, 3, 4))
    held = tree.match(V1, (1, 2, 3, 4))
    _cache(tree, free, (1, 2, 9))
    assert held.node.depth == 4
    tree.evict(tree.num_evictable)
    assert _cached(tree, (1, 2, 3, 4)) == slots
    tree.release(held.node)
    tree.evict(tree.num_evictable)
    assert len(free) == 16


def test_the_leaf_released_longest_ago_is_evicted_first() -> None:
    free = FreeSlots(6)
    tree = PrefixTree(free)
    old, used_again = _cache(tree, free, (1, 2, 3)), _cache(tree, free, (4, 5, 6))
    _cached(tree, (1, 2, 3))
    tree.evict(1)
    assert _cached(tree, (1, 2, 3)) == old
    assert _cached(tree, (4, 5, 6)) == [] and used_again
    assert len(free) == 3


def test_a_trunk_outlives_its_branches() -> None:
    free = FreeSlots(8)
    tree = PrefixTree(free)
    slots = _cache(tree, free, (1, 2, 3, 4))
    _cache(tree, free, (1, 2, 5, 6))
    tree.evict(4)
    assert _cached(tree, (1, 2, 3, 4)) == slots[:2]


def test_versions_share_nothing() -> None:
    free = FreeSlots(8)
    tree = PrefixTree(free)
    _cache(tree, free, (1, 2, 3), V1)
    assert _cached(tree, (1, 2, 3), V2) == []


def test_a_retired_version_keeps_only_what_is_referenced_and_drops_it_on_release() -> None:
    free = FreeSlots(8)
    tree = PrefixTree(free)
    _cache(tree, free, (1, 2, 3))
    _cache(tree, free, (1, 2, 4, 5))
    held = tree.match(V1, (1, 2, 3))
    tree.retire(V1)
    assert tree.versions == ()
    assert len(free) == 8 - 3
    assert tree.num_evictable == 0
    assert _cached(tree, (1, 2, 3)) == []
    tree.release(held.node)
    assert len(free) == 8


def test_a_slot_cannot_be_given_back_twice() -> None:
    free = FreeSlots(2)
    slots = free.take(1)
    free.give(slots)
    with pytest.raises(AssertionError, match="twice"):
        free.give(slots)


class _Requests:
    """Requests on a tree of 64 slots, as the scheduler drives it, with a record of what each slot was computed for."""

    def __init__(self) -> None:
        self.free = FreeSlots(64)
        self.tree = PrefixTree(self.free)
        self.version = PolicyVersion(1, 0)
        self.held: list[tuple[Node, PolicyVersion, tuple[int, ...], Ints]] = []
        self.content: dict[int, tuple[PolicyVersion, tuple[int, ...]]] = {}

    def begin(self, token_ids: tuple[int, ...]) -> None:
        """Half of the new tokens enter the tree at once, as a prompt does; half when the request ends, as a completion does."""
        match = self.tree.match(self.version, token_ids)
        num_known = len(match.slots)
        for index, slot in enumerate(match.slots.tolist()):
            assert self.content[slot] == (self.version, token_ids[: index + 1])
        num_new = len(token_ids) - num_known
        if len(self.free) + self.tree.num_evictable < num_new:
            self.tree.release(match.node)
            return
        self.tree.evict(max(0, num_new - len(self.free)))
        slots = self.free.take(num_new)
        for index, slot in enumerate(slots.tolist()):
            self.content[slot] = (self.version, token_ids[: num_known + index + 1])
        half = num_new // 2
        prompt = token_ids[num_known : num_known + half]
        node = self.tree.extend(match.node, prompt, slots[:half]) if half else match.node
        self.held.append((node, self.version, token_ids[num_known + half :], slots[half:]))

    def end(self, index: int) -> None:
        if self.held:
            node, version, rest, own = self.held.pop(index % len(self.held))
            if version == self.version:
                self.tree.insert(node, rest, own)
            else:
                self.free.give(own)
            self.tree.release(node)

    def evict(self, count: int) -> None:
        count, before = min(count, self.tree.num_evictable), len(self.free)
        self.tree.evict(count)
        assert len(self.free) >= before + count

    def retire(self, _: int) -> None:
        self.tree.retire(self.version)
        self.version = PolicyVersion(1, self.version.step + 1)

    def check(self) -> None:
        references: Counter[Node] = Counter()
        for above, *_ in self.held:
            while above.parent is not None:
                references[above] += 1
                above = above.parent
        nodes = set(self.tree.walk()) | set(references)  # the latter may belong to retired versions
        slots = [slot for node in nodes for slot in node.slots.tolist()] + [slot for *_, own in self.held for slot in own.tolist()]
        assert len(slots) == len(set(slots)) == self.free.num_slots - len(self.free)
        assert all(node.num_references == references[node] and len(node) == len(node.slots) > 0 for node in nodes)
        assert self.tree.num_evictable == sum(len(node) for node in nodes if not references[node])


_sequences = st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple)
_operations = st.one_of(
    st.tuples(st.just("begin"), _sequences),
    st.tuples(st.just("end"), st.integers(0, 7)),
    st.tuples(st.just("evict"), st.integers(1, 12)),
    st.tuples(st.just("retire"), st.just(0)),
)


@given(operations=st.lists(_operations, max_size=60))
def test_no_slot_is_leaked_or_shared_and_references_are_right(operations: list[tuple[str, object]]) -> None:
    requests = _Requests()
    for verb, argument in operations:
        getattr(requests, verb)(argument)
        requests.check()
    while requests.held:
        requests.end(0)
    requests.evict(64)
    assert len(requests.free) == 64
