"""Which token prefix lies in which KV slots, per policy version. Owns nodes, references and eviction; no tensors, no torch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trunkline.engine.slots import FreeSlots, Ints
from trunkline.types import PolicyVersion

_NO_SLOTS: Ints = np.empty(0, dtype=np.int64)
_LONGEST_GROWN = 256  # appending copies the node, so a long completion is a chain of nodes


class Node:
    """An edge of the tree: a run of tokens after the parent's, and the slot of each. A root has none."""

    __slots__ = ("children", "depth", "num_references", "parent", "slots", "token_ids")

    def __init__(self, parent: Node | None, token_ids: tuple[int, ...], slots: Ints, *, num_references: int = 0) -> None:
        self.parent = parent
        self.token_ids = token_ids
        self.slots = slots
        self.children: dict[int, Node] = {}
        self.depth: int = len(token_ids) + (0 if parent is None else parent.depth)
        self.num_references = num_references  # references to this node or below it

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Match:
    """The longest cached prefix of a sequence; its node is referenced until it is released."""

    node: Node
    """Ends the prefix; a root if nothing is cached."""
    slots: Ints
    """Slot of each token of the prefix."""


class PrefixTree:
    """A radix tree per policy version, cut at any token; a slot belongs to one node at most.

    A reference to a node protects it and all above it, so the unreferenced nodes are whole subtrees and can all be
    evicted, leaves first, the one released longest ago first. A node that eviction turns into a leaf counts as just
    released: a trunk outlives its branches.
    """

    def __init__(self, free: FreeSlots) -> None:
        self._free = free
        self._roots: dict[PolicyVersion, Node] = {}
        self._idle_leaves: OrderedDict[Node, None] = OrderedDict()  # unreferenced, released longest ago first
        self.num_evictable = 0

    @property
    def versions(self) -> tuple[PolicyVersion, ...]:
        """Versions whose prefixes can be matched."""
        return tuple(self._roots)

    def match(self, version: PolicyVersion, token_ids: tuple[int, ...]) -> Match:
        """References the longest cached prefix of `token_ids` under `version`; the caller releases its node."""
        node = self._roots.setdefault(version, Node(None, (), _NO_SLOTS))
        found: list[Ints] = []
        while (step := self._step(node, token_ids)) is not None:
            node = step
            found.append(node.slots)
        for above in _path(node):
            self._reference(above)
        return Match(node, np.concatenate(found) if found else _NO_SLOTS)

    def extend(self, node: Node, token_ids: tuple[int, ...], slots: Ints) -> Node:
        """Appends tokens that no child of the referenced `node` begins with; its reference moves to the new node."""
        assert node.num_references and token_ids[0] not in node.children
        child = Node(node, token_ids, slots, num_references=1)
        node.children[token_ids[0]] = child
        return child

    def append(self, node: Node, token_id: int, slot: int) -> Node:
        """Continues the referenced `node` by one token that no child begins with; its reference moves along.

        A leaf that nobody else refers to grows; otherwise the token is a new child.
        """
        if node.num_references > 1 or node.children or node.parent is None or len(node) >= _LONGEST_GROWN:
            return self.extend(node, (token_id,), np.array([slot]))
        node.token_ids += (token_id,)
        node.slots = np.append(node.slots, slot)
        node.depth += 1
        return node

    def follow(self, node: Node, token_id: int) -> Node | None:
        """Moves a reference of `node` down by one token, if that token is cached after it; the new node ends with it."""
        child = node.children.get(token_id)
        if child is None:
            return None
        if len(child) > 1:
            child = self._split(child, 1)
        self._reference(child)
        return child

    def insert(self, node: Node, token_ids: tuple[int, ...], slots: Ints) -> None:
        """Adds a sequence that continues the referenced `node`, unreferenced; slots of tokens that are there are freed."""
        sequence_start = node.depth
        sequence = token_ids
        while sequence and (step := self._step_from(node, sequence)) is not None:
            node = step
            sequence = token_ids[node.depth - sequence_start :]
        num_known = node.depth - sequence_start
        self._free.give(slots[:num_known])
        if node in self._idle_leaves:
            self._idle_leaves.move_to_end(node)
        if sequence:
            self._idle_leaves.pop(node, None)  # no leaf any more
            child = Node(node, sequence, slots[num_known:])
            node.children[sequence[0]] = child
            self._idle_leaves[child] = None
            self.num_evictable += len(child)

    def release(self, node: Node) -> None:
        """Gives up one reference. Under a retired version, nodes without references are dropped at once."""
        path = list(_path(node))
        is_live = any(path[-1] is root for root in self._roots.values())
        for above in path:
            above.num_references -= 1
            if above.num_references or above.parent is None:
                continue
            self.num_evictable += len(above)
            if not is_live:
                self._drop(above)
            elif not above.children:
                self._idle_leaves[above] = None

    def retire(self, version: PolicyVersion) -> None:
        """Forgets a version: nothing matches it any more, and what is not referenced is dropped."""
        root = self._roots.pop(version, None)
        if root is not None:
            for node in [node for node in _below(root) if node.num_references == 0]:
                self._idle_leaves.pop(node, None)
                self._drop(node)

    def evict(self, num_slots: int) -> None:
        """Frees at least `num_slots`; the caller has made sure that so many are evictable."""
        assert num_slots <= self.num_evictable, f"{num_slots} slots to evict of {self.num_evictable} evictable ones"
        target = len(self._free) + num_slots
        while len(self._free) < target:
            leaf, _ = self._idle_leaves.popitem(last=False)
            self._drop(leaf)
            above = leaf.parent
            assert above is not None
            if above.parent is not None and not above.children and above.num_references == 0:
                self._idle_leaves[above] = None

    def walk(self) -> Iterator[Node]:
        """All nodes of the versions that can be matched, roots excluded, children before parents."""
        for root in self._roots.values():
            yield from _below(root)

    def _reference(self, node: Node) -> None:
        if node.num_references == 0:
            self.num_evictable -= len(node)
            self._idle_leaves.pop(node, None)
        node.num_references += 1

    def _step(self, node: Node, token_ids: tuple[int, ...]) -> Node | None:
        """The child that `token_ids` (a whole sequence from the root) continues with, split where it differs."""
        return self._step_from(node, token_ids[node.depth :]) if len(token_ids) > node.depth else None

    def _step_from(self, node: Node, rest: tuple[int, ...]) -> Node | None:
        child = node.children.get(rest[0])
        if child is None:
            return None
        num_common = _common_length(child.token_ids, rest)
        return child if num_common == len(child) else self._split(child, num_common)

    def _split(self, node: Node, at: int) -> Node:
        """A new node with the first `at` tokens; `node` keeps the rest, so that references to its end stay right."""
        assert node.parent is not None
        upper = Node(node.parent, node.token_ids[:at], node.slots[:at], num_references=node.num_references)
        node.parent.children[upper.token_ids[0]] = upper
        node.token_ids, node.slots, node.parent = node.token_ids[at:], node.slots[at:], upper
        upper.children[node.token_ids[0]] = node
        return upper

    def _drop(self, leaf: Node) -> None:
        assert leaf.parent is not None and not leaf.children and leaf.num_references == 0
        del leaf.parent.children[leaf.token_ids[0]]
        self.num_evictable -= len(leaf)
        self._free.give(leaf.slots)


def _path(node: Node) -> Iterator[Node]:
    """From `node` up to its root, both included."""
    above: Node | None = node
    while above is not None:
        yield above
        above = above.parent


def _below(node: Node) -> Iterator[Node]:
    """All nodes under `node`, children before parents."""
    stack = list(node.children.values())
    order: list[Node] = []
    while stack:
        top = stack.pop()
        order.append(top)
        stack.extend(top.children.values())
    return reversed(order)


def _common_length(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    if left == right[: len(left)]:
        return len(left)
    return next((index for index, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), len(right))
