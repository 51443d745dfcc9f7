"""Cuts a forest that does not fit into memory into partitions, each a small forest below one path. Owns the cut; no torch.

           ┌─ 7 7 7 ─┬─ 8 8       with max_tokens = 5:     partition 0   5 5 6      (parent -1)
    5 5 6 ─┤         └─ 9                                  partition 1   3 3 3 4    (parent 0, sees 5 5 6)
           └─ 3 3 3 4                                      partition 2   7 7 7      (parent 0, sees 5 5 6)
                                                           partition 3   8 8, 9     (parent 2, sees 5 5 6 7 7 7)

All tokens of a partition have the same ancestors outside it, so keys and values are all that passes between partitions.
Bottom-up, what still hangs together below a node is packed: all of it stays with the node if it fits, else the children are
put into as few partitions as will hold them, and only the smallest of these may stay with the node. So partitions that
others hang from, whose activations outlive their own pass or are computed twice, stay small; of those that hang from one
node, any two hold more than max_tokens together.
"""

# N forest tokens, U nodes, G segments (nodes, or pieces of nodes too long), P tokens of a partition, X exposed ones among them,
# Y those on one child's path

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trunkline.attention.forest import Forest, Ints
from trunkline.attention.layout import TreeLayout


@dataclass(frozen=True, eq=False)
class Partition:
    """A part of a forest that is computed at once."""

    index_P: Ints
    """Forest index of each of its tokens, ascending: pre-order."""
    layout: TreeLayout
    """Its tokens as a forest of their own, and how many ancestors they have outside."""
    parent: int
    """Place, in the list, of the partition that it hangs from; -1 if it starts at roots."""
    path_Y: Ints
    """Which of the parent's *exposed* tokens are its ancestors, in order; the parent's own ancestors come before them."""
    exposed_X: Ints
    """Its own tokens (local indices, ascending) whose keys and values its children need."""


def partition_forest(forest: Forest, *, max_tokens: int) -> list[Partition]:
    """Partitions of at most `max_tokens` tokens in depth-first order: after its parent, each comes with all that hangs from it.

    Every forest token is in exactly one. Raises ValueError if max_tokens < 1.
    """
    if max_tokens < 1:
        raise ValueError(f"a partition holds at least one token, got max_tokens={max_tokens}")
    segments = _cut_nodes(forest, max_tokens)
    below_G, bins = _pack(segments, max_tokens)
    bins = _depth_first(segments, bins)
    return _build(segments, below_G, bins)


def ancestors_of(partitions: Sequence[Partition], place: int) -> Ints:
    """Forest indices of a partition's ancestors, from the root down."""
    above: list[Ints] = []
    while (parent := partitions[place].parent) >= 0:
        above.append(partitions[parent].index_P[partitions[parent].exposed_X[partitions[place].path_Y]])
        place = parent
    return np.concatenate([*above[::-1], np.empty(0, np.int64)])


class _Segments(NamedTuple):
    """Runs of tokens that stay together, in pre-order."""

    start_G: Ints
    size_G: Ints
    parent_G: list[int]  # the segment that ends where this one hangs; -1 at a root


class _Bin(NamedTuple):
    """Segments that hang from the end of one other, and the top of a partition each with what was kept below it."""

    hook: int  # the segment they hang from; -1: roots
    tops: list[int]


def _cut_nodes(forest: Forest, max_tokens: int) -> _Segments:
    """Nodes in pieces of nearly equal size, for a short rest would be a partition of its own."""
    size_U = forest.node_end_U - forest.node_start_U
    pieces_U = -(-size_U // max_tokens)
    first_U = np.cumsum(pieces_U) - pieces_U
    node_G = np.repeat(np.arange(len(size_U)), pieces_U)
    piece_G = np.arange(len(node_G)) - first_U[node_G]
    start_G = forest.node_start_U[node_G] + size_U[node_G] * piece_G // pieces_U[node_G]
    parent_G = np.arange(len(node_G)) - 1
    parent_U = forest.parent_N[forest.node_start_U]
    parent_G[first_U] = np.where(parent_U < 0, -1, np.searchsorted(start_G, parent_U, side="right") - 1)
    return _Segments(start_G, np.diff(start_G, append=forest.num_tokens), parent_G.tolist())


def _pack(segments: _Segments, max_tokens: int) -> tuple[Ints, list[_Bin]]:
    """Tokens that stay together from each segment down, and what is cut off."""
    below = segments.size_G.tolist()
    children: list[list[int]] = [[] for _ in range(len(below) + 1)]  # the last one: of no segment, the roots
    bins: list[_Bin] = []
    for segment in range(len(below) - 1, -2, -1):
        own = below[segment] if segment >= 0 else 0
        total = own + sum(below[child] for child in children[segment])
        kept = total if segment >= 0 and total <= max_tokens else own
        if kept != total:
            packed = _fill_bins(children[segment], below, max_tokens)
            smallest = min(range(len(packed)), key=lambda place: packed[place][0])
            if segment >= 0 and own + packed[smallest][0] <= max_tokens:
                kept += packed.pop(smallest)[0]
            bins.extend(_Bin(segment, sorted(tops)) for _, tops in packed)
        children[segment] = []
        if segment >= 0:
            below[segment] = kept
            children[segments.parent_G[segment]].append(segment)
    return np.array(below), bins


def _fill_bins(items: list[int], size: list[int], capacity: int) -> list[tuple[int, list[int]]]:
    """(tokens, items) of each bin: best fit, the largest first."""
    packed: list[tuple[int, list[int]]] = []
    rooms: list[tuple[int, int]] = []  # (room left, bin), ascending
    for item in sorted(items, key=lambda item: (-size[item], item)):
        place = bisect_left(rooms, (size[item], -1))
        if place < len(rooms):
            room, number = rooms.pop(place)
            packed[number][1].append(item)
            packed[number] = (packed[number][0] + size[item], packed[number][1])
        else:
            room, number = capacity, len(packed)
            packed.append((size[item], [item]))
        insort(rooms, (room - size[item], number))
    return packed


def _depth_first(segments: _Segments, bins: list[_Bin]) -> list[_Bin]:
    """The bins in depth-first order of the partitions that they become."""
    owner = _owners(segments, bins)
    children: list[list[int]] = [[] for _ in range(len(bins) + 1)]
    for number in sorted(range(len(bins)), key=lambda number: (bins[number].hook, bins[number].tops[0]), reverse=True):
        children[owner[bins[number].hook] if bins[number].hook >= 0 else -1].append(number)
    order: list[int] = []
    waiting = children[-1]
    while waiting:
        order.append(waiting.pop())
        waiting.extend(children[order[-1]])
    return [bins[number] for number in order]


def _owners(segments: _Segments, bins: Sequence[_Bin]) -> list[int]:
    """Of each segment, the bin whose partition it is part of."""
    owner = [-1] * len(segments.parent_G)
    for number, (_, tops) in enumerate(bins):
        for top in tops:
            owner[top] = number
    for segment, parent in enumerate(segments.parent_G):
        if owner[segment] < 0:
            owner[segment] = owner[parent]
    return owner


def _build(segments: _Segments, below_G: Ints, bins: list[_Bin]) -> list[Partition]:
    owner_G = np.array(_owners(segments, bins))
    order_G = np.argsort(owner_G, kind="stable")
    members = np.split(order_G, np.cumsum(np.bincount(owner_G, minlength=len(bins)))[:-1])
    paths = [_path(segments, owner_G, hook) for hook, _ in bins]
    is_exposed_G = np.zeros(len(owner_G), np.bool_)
    for path in paths:
        is_exposed_G[path] = True
    exposed_start_G = np.zeros(len(owner_G), np.int64)  # of an exposed segment: its place among its partition's exposed tokens
    partitions: list[Partition] = []
    for (hook, _), mine, path in zip(bins, members, paths, strict=True):
        size = segments.size_G[mine]
        start = np.cumsum(size) - size
        exposed = is_exposed_G[mine]
        exposed_start_G[mine[exposed]] = np.cumsum(size[exposed]) - size[exposed]
        path_Y = _ranges(exposed_start_G[path], segments.size_G[path])
        parent = int(owner_G[hook]) if hook >= 0 else -1
        num_ancestors = partitions[parent].layout.num_ancestors + len(path_Y) if hook >= 0 else 0
        partitions.append(
            Partition(
                index_P=_ranges(segments.start_G[mine], size),
                layout=_layout(start, size, start + below_G[mine], num_ancestors),
                parent=parent,
                path_Y=path_Y,
                exposed_X=_ranges(start[exposed], size[exposed]),
            )
        )
    return partitions


def _path(segments: _Segments, owner_G: Ints, hook: int) -> list[int]:
    """Segments of hook's partition from its top down to the hook."""
    path: list[int] = []
    segment = hook
    while segment >= 0 and owner_G[segment] == owner_G[hook]:
        path.append(segment)
        segment = segments.parent_G[segment]
    return path[::-1]


def _layout(start: Ints, size: Ints, subtree_end: Ints, num_ancestors: int) -> TreeLayout:
    """Local nodes. A segment whose only child left is the next one is one node with it: the subtrees end together."""
    goes_on = (subtree_end[:-1] == subtree_end[1:]) & (start[1:] < subtree_end[:-1])
    is_first = np.concatenate(([True], ~goes_on))
    node_start = start[is_first]
    total = start[-1:] + size[-1:]
    return TreeLayout(node_start, np.concatenate((node_start[1:], total)), subtree_end[is_first], num_ancestors)


def _ranges(start: Ints, size: Ints) -> Ints:
    """start[0], start[0] + 1, ... of `size[0]` numbers, then those of the next."""
    return np.arange(size.sum()) + np.repeat(start - (np.cumsum(size) - size), size)
