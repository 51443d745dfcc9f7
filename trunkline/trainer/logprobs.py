"""Log-probabilities of trained tokens out of a forest's hidden states. Owns where logits are made, and that they are few.

What is predicted is known by its parent, the token whose hidden state predicts it; partitions share the rows out by parents.
"""

# T forest tokens, M trained tokens of all samples, R distinct (forest token, temperature) pairs among them, F flat tokens,
# C hidden_size, V vocabulary, N rows of a chunk or tokens of the forest, P tokens of a partition, m trained tokens read there

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trunkline.attention.forest import Forest, Ints

# Logits alive at once; a step with more recomputes them chunk by chunk in the backward pass.
_MAX_LOGITS_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Targets:
    """The rows of logits that a step needs, and which sample's token reads which."""

    parent_R: Tensor
    """Forest token whose hidden state predicts."""
    token_id_R: Tensor
    """What it predicts."""
    temperature_R: Tensor
    """Divides the logits (fp64)."""
    row_M: Tensor
    """Row of each trained token, in the order of the flat samples."""

    def to(self, device: torch.device) -> Targets:
        """On `device`."""
        return Targets(*(tensor.to(device) for tensor in (self.parent_R, self.token_id_R, self.temperature_R, self.row_M)))


def find_targets(forest: Forest, trained_F: NDArray[np.bool_], temperature_F: NDArray[np.float64]) -> Targets:
    """Rows for the trained tokens. A parent predicts the first token of every child, so this is a gather, never a shift.

    Samples that share a token and a temperature share its row. Trained tokens must not be roots.
    """
    temperature_M, level_M = np.unique(temperature_F[trained_F], return_inverse=True)
    pair_R, row_M = np.unique(forest.paths_F[trained_F] * len(temperature_M) + level_M, return_inverse=True)
    vertex_R = pair_R // max(1, len(temperature_M))
    parent_R = forest.parent_N[vertex_R]
    assert (parent_R >= 0).all(), "a first token cannot be trained"
    return Targets(
        parent_R=torch.from_numpy(parent_R),
        token_id_R=torch.from_numpy(forest.token_ids_N[vertex_R]),
        temperature_R=torch.from_numpy(temperature_M[pair_R % max(1, len(temperature_M))]),
        row_M=torch.from_numpy(row_M),
    )


@dataclass(frozen=True)
class PartTargets:
    """The share of a partition: what its tokens predict."""

    targets: Targets
    """Rows and trained tokens of the partition; parents are local indices."""
    place_m: Tensor
    """Place of each of these trained tokens among all of the step, ascending."""


def split_targets(targets: Targets, partitions: Sequence[Ints]) -> list[PartTargets]:
    """Each row goes where its *parent* is, so that no hidden state crosses. `partitions` hold each forest token once."""
    if len(partitions) == 1:
        return [PartTargets(targets, torch.arange(len(targets.row_M)))]
    size = sum(map(len, partitions))
    owner_N, local_N = np.empty(size, np.int64), np.empty(size, np.int64)
    for number, index_P in enumerate(partitions):
        owner_N[index_P], local_N[index_P] = number, np.arange(len(index_P))
    parent_R, row_M = targets.parent_R.numpy(), targets.row_M.numpy()
    rows, new_R = _grouped(owner_N[parent_R], len(partitions))
    places, _ = _grouped(owner_N[parent_R[row_M]], len(partitions))
    return [
        PartTargets(
            Targets(
                parent_R=torch.from_numpy(local_N[parent_R[mine]]),
                token_id_R=targets.token_id_R[mine],
                temperature_R=targets.temperature_R[mine],
                row_M=torch.from_numpy(new_R[row_M[place]]),
            ),
            torch.from_numpy(place),
        )
        for mine, place in zip(rows, places, strict=True)
    ]


def _grouped(owner_I: Ints, num_owners: int) -> tuple[list[Ints], Ints]:
    """The items of each owner, ascending, and every item's place among its owner's."""
    order_I = np.argsort(owner_I, kind="stable")
    counts = np.bincount(owner_I, minlength=num_owners)
    place_I = np.empty(len(owner_I), np.int64)
    place_I[order_I] = np.arange(len(owner_I)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.split(order_I, np.cumsum(counts)[:-1]), place_I


def trained_logprobs(
    hidden_TC: Tensor, targets: Targets, *, logits: Callable[[Tensor], Tensor], vocab_size: int, max_bytes: int = _MAX_LOGITS_BYTES
) -> Tensor:
    """logp_M of each trained token under the policy at its sample's temperature, in max(fp32, dtype of hidden_TC).

    `logits` maps hidden_NC to logits_NV; more than `max_bytes` of them are never alive at once.
    """
    precise = torch.promote_types(hidden_TC.dtype, torch.float32)
    is_scaled = bool((targets.temperature_R != 1).any())  # two passes over the logits, forward and backward, if they are

    def rows(hidden_NC: Tensor, token_id_N: Tensor, temperature_N: Tensor) -> Tensor:
        logits_NV = logits(hidden_NC).to(precise)
        if is_scaled:
            logits_NV = logits_NV / temperature_N.unsqueeze(-1)
        return -F.cross_entropy(logits_NV, token_id_N, reduction="none")

    hidden_RC = hidden_TC.index_select(0, targets.parent_R)
    temperature_R = targets.temperature_R.to(precise)
    size = max(1, max_bytes // (vocab_size * precise.itemsize))
    if len(hidden_RC) <= size:
        return rows(hidden_RC, targets.token_id_R, temperature_R).index_select(0, targets.row_M)
    chunks = zip(hidden_RC.split(size), targets.token_id_R.split(size), temperature_R.split(size), strict=True)
    logp_R = torch.cat([checkpoint(rows, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks])
    return logp_R.index_select(0, targets.row_M)
