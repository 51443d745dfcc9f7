"""Cuts a step's samples into parts whose forests fit into memory. Owns the cut; a part is trained by step.py."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trunkline.attention.forest import Forest

DEFAULT_PASS_TOKENS = 16_384


def split_samples(forest: Forest, *, max_tokens: int) -> list[NDArray[np.intp]]:
    """Sample indices of each part; a part's own forest has at most `max_tokens` tokens, or half of them beyond the longest sample.

    Samples are taken in pre-order, so that neighbours in the forest stay together and little is computed twice. The longest
    sample's activations have to fit into memory anyway; room beyond it is what lets the calls on a long trunk share its computation.
    """
    last_S = forest.paths_F[forest.path_offsets_S1[1:] - 1]
    longest = int(np.diff(forest.path_offsets_S1).max())
    max_tokens = max(max_tokens, longest + max_tokens // 2)
    if forest.num_tokens <= max_tokens:
        return [np.arange(len(last_S))]
    order = np.argsort(last_S, kind="stable")
    parts: list[NDArray[np.intp]] = []
    is_counted_N = np.zeros(forest.num_tokens, np.bool_)
    first = size = 0
    for position, sample in enumerate(order.tolist()):
        path = forest.path(sample)
        num_new = int(np.count_nonzero(~is_counted_N[path]))
        if position > first and size + num_new > max_tokens:
            parts.append(order[first:position])
            is_counted_N[:] = False
            first, size, num_new = position, 0, len(path)
        is_counted_N[path] = True
        size += num_new
    return [*parts, order[first:]]
