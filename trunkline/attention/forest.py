"""The prefix forest of a step's samples: each distinct token context once, flat, in pre-order. Owns the layout; no torch.

Two samples, `5 6 7 8` and `5 6 9`, as a forest of one tree with three nodes:

    index       0  1  2  3  4        node 0 = [0, 2), subtree_end 5      5 6 ─┬─ 7 8   node 1 = [2, 4), subtree_end 4
    token       5  6  7  8  9                                                 └─ 9     node 2 = [4, 5), subtree_end 5
    position    0  1  2  3  2
    parent     -1  0  1  2  1        paths: [0 1 2 3] and [0 1 4]

Key k is visible to query q iff k <= q < subtree_end(k). A node ends only where contexts really part: a sample that merely
ends inside a chain cuts nothing, so the number of nodes follows the branches, not the samples.
"""

# N forest tokens, U nodes, S samples, S1 = S + 1, F tokens of all samples laid end to end, A samples that add tokens

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
TokenIds = Sequence[int] | Ints

_MAX_TOKEN_ID = 2**32 - 1


@dataclass(frozen=True, eq=False)
class Forest:
    """Token contexts in pre-order, with the way of every sample through them."""

    token_ids_N: Ints
    """The token that each context ends in."""
    positions_N: Ints
    """Depth from the root, from 0: the position id."""
    parent_N: Ints
    """Index of the context one token shorter; -1 at a root."""
    node_start_U: Ints
    """First own token of each node."""
    node_end_U: Ints
    """One past the node's last own token."""
    node_subtree_end_U: Ints
    """One past the last token below the node; equal to node_end_U at a leaf."""
    paths_F: Ints
    """Forest index of each token of each sample, samples in the order given."""
    path_offsets_S1: Ints
    """Sample s is paths_F[path_offsets_S1[s] : path_offsets_S1[s + 1]]."""

    @property
    def num_tokens(self) -> int:
        """N, the tokens computed."""
        return len(self.token_ids_N)

    @property
    def num_flat_tokens(self) -> int:
        """F, the tokens if each sample were computed alone."""
        return len(self.paths_F)

    def path(self, sample: int) -> Ints:
        """Forest indices of one sample's tokens, in order."""
        return self.paths_F[self.path_offsets_S1[sample] : self.path_offsets_S1[sample + 1]]

    def subtree_end_N(self) -> Ints:
        """subtree_end of the node that holds each token: with the index, the whole visibility rule."""
        return np.repeat(self.node_subtree_end_U, self.node_end_U - self.node_start_U)


def build_forest(sequences: Sequence[TokenIds]) -> Forest:
    """Merges common prefixes of token sequences.

    Sorted lexicographically, a sequence shares with its predecessor all that it shares with anything before it; it adds
    the rest. Raises ValueError if there is no sequence, an empty one, or an id outside 0 .. 2**32 - 1.
    """
    rows = [np.asarray(sequence, dtype=np.int64) for sequence in sequences]
    _check(rows)
    paths, first_S, shared_S, parent_S, fresh = _merge(rows)
    added_S = np.array([len(piece) for piece in fresh])
    size = int(added_S.sum())
    positions_N = np.arange(size) - np.repeat(first_S - shared_S, added_S)
    first_A, parent_A = first_S[added_S > 0], parent_S[added_S > 0]
    parent_N = np.arange(size) - 1
    parent_N[first_A] = parent_A
    start_U = _node_starts(first_A, parent_A)
    return Forest(
        token_ids_N=np.concatenate(fresh),
        positions_N=positions_N,
        parent_N=parent_N,
        node_start_U=start_U,
        node_end_U=np.append(start_U[1:], size),
        node_subtree_end_U=_subtree_ends(positions_N[start_U], start_U, size),
        paths_F=np.concatenate(paths),
        path_offsets_S1=np.concatenate(([0], np.cumsum([len(row) for row in rows]))),
    )


class _Merged(NamedTuple):
    """What each sequence adds, in sorted order (S), and every sequence's path, in the order given."""

    paths: list[Ints]
    first_S: Ints  # forest index of the first token it adds
    shared_S: Ints  # tokens it shares
    parent_S: Ints  # forest index of the last one shared; -1 if none
    fresh: list[Ints]  # the tokens it adds


def _merge(rows: Sequence[Ints]) -> _Merged:
    # Big-endian bytes compare like the token ids; Python then sorts with memcmp, a prefix before what extends it.
    keys = [row.astype(">u4").tobytes() for row in rows]
    path = previous = rows[0][:0]
    paths, fresh = [path] * len(rows), []
    first_S, shared_S, parent_S = [], [], []
    size = 0
    for sample in sorted(range(len(rows)), key=keys.__getitem__):
        row = rows[sample]
        shared = _common_prefix(previous, row)
        first_S.append(size)
        shared_S.append(shared)
        parent_S.append(int(path[shared - 1]) if shared else -1)
        fresh.append(row[shared:])
        path = np.concatenate((path[:shared], np.arange(size, size + len(row) - shared)))
        paths[sample] = path
        size += len(row) - shared
        previous = row
    return _Merged(paths, np.array(first_S), np.array(shared_S), np.array(parent_S), fresh)


def _check(rows: Sequence[Ints]) -> None:
    if not rows:
        raise ValueError("a forest needs at least one token sequence, got none; skip the step instead")
    for index, row in enumerate(rows):
        if row.ndim != 1 or not len(row):
            raise ValueError(f"sequence {index} of {len(rows)} has shape {row.shape}; a sample is a flat run of at least one token")
    low, high = min(int(row.min()) for row in rows), max(int(row.max()) for row in rows)
    if low < 0 or high > _MAX_TOKEN_ID:
        raise ValueError(f"token ids must lie in 0..{_MAX_TOKEN_ID}, got {low if low < 0 else high}")


def _common_prefix(a: Ints, b: Ints) -> int:
    size = min(len(a), len(b))
    differs = a[:size] != b[:size]
    first = int(differs.argmax()) if size else 0
    return first if size and differs[first] else size


def _node_starts(first_A: Ints, parent_A: Ints) -> Ints:
    """Nodes start at roots, at the children of branching tokens, and nowhere else: `first - 1 == parent` goes on a chain."""
    jumps = parent_A != first_A - 1
    jumps[0] = True
    branching = parent_A[jumps & (parent_A >= 0)]
    return np.unique(np.concatenate((first_A[jumps], branching + 1)))


def _subtree_ends(depth_U: Ints, start_U: Ints, size: int) -> Ints:
    """A subtree ends where the next node starts that is no deeper: in pre-order, all between are descendants."""
    ends_U = np.full(len(start_U), size, dtype=np.int64)
    open_nodes: list[int] = []
    for node, depth in enumerate(depth_U.tolist()):
        while open_nodes and depth_U[open_nodes[-1]] >= depth:
            ends_U[open_nodes.pop()] = start_U[node]
        open_nodes.append(node)
    return ends_U
