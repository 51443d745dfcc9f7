"""Routing replay: one route per forest token, recorded or the router's own. Owns plan and replay; records no routes, computes no layer.

Two samples share a forest token only if the records of their routes agree, as sets of experts. A sample without a record for a
token goes with the first sample that has one: a prompt has no route of its own, a sampled token has the one it was sampled with.
"""

# N forest tokens, P forest tokens of one part, S samples, S1 = S + 1, F tokens of all samples laid end to end, M some of them
# R records, L layers, E experts, K experts a token

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trunkline.attention.forest import Forest, Ints, build_forest
from trunkline.errors import TrainerError
from trunkline.models.routing import Route, TopK

Bools = NDArray[np.bool_]
Records = NDArray[np.uint16]

_MAX_KEY = 2**32 - 1  # what build_forest takes
_MAX_EXPERTS = 2**15  # experts are kept as int16: torch indexes no unsigned ones
_COMPARED_AT_ONCE = 4096  # records; at 62 layers x 8 experts 4 MB


@dataclass(frozen=True, eq=False)
class RoutePlan:
    """A step's forest, split where records demand it, and the record of each of its tokens."""

    forest: Forest
    """Contexts that differ in a token or in a recorded route."""
    route_of_N: Ints
    """Row of routes_RLK of each forest token; -1 where no sample has a record."""
    routes_RLK: Records
    """The records, as given."""
    num_split_tokens: int
    """Lost sharing: forest tokens beyond those of the forest of token ids alone."""
    num_conflicts: int
    """Places where samples part although they go on with the same token."""


def plan_routes(sequences: Sequence[Ints], route_of_F: Ints, routes_RLK: Records, *, vocab_size: int) -> RoutePlan:
    """The smallest forest in which every recorded token of every sample finds its own record.

    `route_of_F` is the row of `routes_RLK` of each token of the sequences laid end to end, as input; -1 where none is recorded.
    Rows are compared by content, as sets of experts a layer; equal rows are found fastest. Where samples disagree, the first
    record in flat order and all samples without one keep together. Ids must lie below `vocab_size`, rows be rows (the batch and the
    learner have checked). Raises TrainerError if more samples disagree about one token than ids can tell apart.
    """
    unsplit = forest = build_forest(sequences)
    assert len(route_of_F) == unsplit.num_flat_tokens, "one row a token"
    assert unsplit.token_ids_N.max() < vocab_size, "ids beyond the vocabulary would stand for splits"
    class_F = _split_classes(unsplit, sequences, route_of_F, routes_RLK, vocab_size)
    if class_F.any():
        forest = build_forest(_keyed(sequences, class_F, vocab_size))
        forest = replace(forest, token_ids_N=forest.token_ids_N % vocab_size)
    recorded_M = np.flatnonzero(route_of_F >= 0)
    return RoutePlan(
        forest=forest,
        route_of_N=_first_seen(forest.paths_F[recorded_M], route_of_F[recorded_M], forest.num_tokens),
        routes_RLK=routes_RLK,
        num_split_tokens=forest.num_tokens - unsplit.num_tokens,
        num_conflicts=_num_conflicts(forest),
    )


def _split_classes(forest: Forest, sequences: Sequence[Ints], route_of_F: Ints, routes_RLK: Records, vocab_size: int) -> Ints:
    """A number per flat token: samples that share a context stay together where it is equal, and part where it differs.

    Samples with different records part, and those with equal ones keep together, whatever happened before them. But whom a sample
    without a record follows depends on who is still with it; below another split that is known once the split is made. So such
    tokens wait, with the samples that pass them, for a forest in which nothing above them is in conflict.
    """
    class_F = np.zeros(len(route_of_F), np.int64)
    pieces = np.split(np.arange(len(route_of_F)), np.cumsum([len(row) for row in sequences])[:-1])
    samples = np.arange(len(sequences))
    while True:
        flat_M = np.concatenate([pieces[sample] for sample in samples])
        found_M = _record_classes(forest, route_of_F[flat_M], routes_RLK)
        in_conflict_N = _marked(forest.paths_F[found_M > 0], forest.num_tokens)
        has_unrecorded_N = _marked(forest.paths_F[found_M < 0], forest.num_tokens)
        waits_M = (in_conflict_N & has_unrecorded_N & _is_below(in_conflict_N, forest))[forest.paths_F]
        class_F[flat_M] += np.where(waits_M, 0, found_M.clip(min=0))
        if not waits_M.any():
            return class_F
        samples = samples[np.logical_or.reduceat(waits_M, forest.path_offsets_S1[:-1])]
        waiting = samples.tolist()
        forest = build_forest(_keyed([sequences[s] for s in waiting], np.concatenate([class_F[pieces[s]] for s in waiting]), vocab_size))


def _record_classes(forest: Forest, route_of_F: Ints, routes_RLK: Records) -> Ints:
    """class_F: which of the distinct records of its forest token each flat token has, in order of appearance; -1 for none."""
    class_F = np.full(len(route_of_F), -1)
    open_M = np.flatnonzero(route_of_F >= 0)
    number = 0
    while len(open_M):
        token_M, row_M = forest.paths_F[open_M], route_of_F[open_M]
        is_first_M = _same_experts(routes_RLK, row_M, _first_seen(token_M, row_M, forest.num_tokens)[token_M])
        class_F[open_M[is_first_M]] = number
        open_M = open_M[~is_first_M]
        number += 1
    return class_F


def _same_experts(routes_RLK: Records, row_M: Ints, other_M: Ints) -> Bools:
    same_M = row_M == other_M
    # The calls of an episode pass a token again and again, with the same two rows: each pair is compared once.
    pairs, pair_of = np.unique(row_M[~same_M] * len(routes_RLK) + other_M[~same_M], return_inverse=True)
    is_same = np.empty(len(pairs), np.bool_)
    for start in range(0, len(pairs), _COMPARED_AT_ONCE):
        row, other = np.divmod(pairs[start : start + _COMPARED_AT_ONCE], len(routes_RLK))
        is_same[start : start + _COMPARED_AT_ONCE] = (np.sort(routes_RLK[row]) == np.sort(routes_RLK[other])).all(axis=(1, 2))
    same_M[~same_M] = is_same[pair_of]
    return same_M


def _keyed(sequences: Sequence[Ints], class_F: Ints, vocab_size: int) -> list[Ints]:
    """Sequences of ids that are equal where token and class are."""
    key_F = np.concatenate(sequences) + class_F * vocab_size
    if key_F.max() > _MAX_KEY:
        raise TrainerError(
            f"{int(class_F.max()) + 1} samples share a context and all its records differ; with a vocabulary of {vocab_size} at most "
            f"{_MAX_KEY // vocab_size} can be told apart in one step; use fewer samples a step, or turn replay off"
        )
    return np.split(key_F, np.cumsum([len(row) for row in sequences])[:-1])


def _first_seen(token_M: Ints, row_M: Ints, num_tokens: int) -> Ints:
    row_N = np.full(num_tokens, -1)
    row_N[token_M[::-1]] = row_M[::-1]  # numpy keeps the last of several values for one place: in reverse, the first
    return row_N


def _marked(token_M: Ints, num_tokens: int) -> Bools:
    mark_N = np.zeros(num_tokens, np.bool_)
    mark_N[token_M] = True
    return mark_N


def _is_below(mark_N: Bools, forest: Forest) -> Bools:
    """Tokens with a marked one among their ancestors: in pre-order, those between it and its subtree's end."""
    marked = np.flatnonzero(mark_N)
    step = np.zeros(forest.num_tokens + 1, np.int64)
    step[marked + 1] += 1
    np.subtract.at(step, forest.subtree_end_N()[marked], 1)
    return np.cumsum(step[:-1]) > 0


def _num_conflicts(forest: Forest) -> int:
    start_U = forest.node_start_U  # children of one token that are equal all start nodes
    _, count = np.unique(forest.parent_N[start_U] * 2**32 + forest.token_ids_N[start_U], return_counts=True)
    return int((count > 1).sum())


class Mismatch(NamedTuple):
    """How far the router of the trainer is from the records; 0 where there is none."""

    sets: float
    """Share of recorded tokens and layers for which the router's own experts are not all the recorded ones."""
    experts: float
    """Share of recorded experts that are not among the router's own."""


class ReplayedRoutes:
    """The routes of a forest: recorded ones as recorded, the others chosen once by the router, and then the same for good.

    A layer that is computed again (gradient checkpointing, a partition walked twice) gets the routes that it had, in their order.

    >>> routes = ReplayedRoutes.load(plan, num_layers=2, num_experts=32, top_k=4, device=device)
    >>> hidden_PC = decoder(token_ids_P, positions_P, attend, routes.for_tokens(index_P))
    >>> update_bias_(decoder, routes.counts_LE(np.bincount(plan.forest.paths_F)), rate=1e-3)
    """

    def __init__(self, chosen_LNK: Tensor, is_recorded_N: Tensor, *, num_experts: int) -> None:
        """`chosen_LNK` (int16): experts of each layer and token, -1 where not chosen yet."""
        self._chosen_LNK = chosen_LNK
        self._is_recorded_N = is_recorded_N
        self._num_experts = num_experts
        # Recorded experts among the router's own; -1 where the router was not asked.
        self._agreed_LN = torch.full(chosen_LNK.shape[:2], -1, dtype=torch.int16, device=chosen_LNK.device)
        self._is_routed_LN = np.zeros(chosen_LNK.shape[:2], np.bool_)  # on the host: known without waiting for the device

    @classmethod
    def load(cls, plan: RoutePlan, *, num_layers: int, num_experts: int, top_k: int, device: torch.device | str) -> ReplayedRoutes:
        """Lays a plan's records out for a model of this shape.

        Raises TrainerError if the records are of another shape, name an expert that the model has not, or one twice.
        """
        if num_experts > _MAX_EXPERTS:
            raise TrainerError(f"routes of at most {_MAX_EXPERTS} experts can be replayed, the model has {num_experts}")
        chosen_LNK = np.full((num_layers, plan.forest.num_tokens, top_k), -1, np.int16)
        is_recorded_N = plan.route_of_N >= 0
        if is_recorded_N.any():
            if plan.routes_RLK.shape[1:] != (num_layers, top_k):
                raise TrainerError(
                    f"records of routes have {plan.routes_RLK.shape[1]} layers x {plan.routes_RLK.shape[2]} experts, the model has "
                    f"{num_layers} x {top_k}; the samples are of another model"
                )
            for layer, chosen_NK in enumerate(chosen_LNK):  # one after the other: temporaries of all are as large as all records
                routes_MK = plan.routes_RLK[plan.route_of_N[is_recorded_N], layer]
                _check_experts(routes_MK, layer, num_experts)
                chosen_NK[is_recorded_N] = routes_MK
        return cls(torch.from_numpy(chosen_LNK).to(device), torch.from_numpy(is_recorded_N).to(device), num_experts=num_experts)

    def for_tokens(self, index_P: Ints) -> Route:
        """The Route of a forward pass over these forest tokens, in this order."""
        return _PartRoute(self, index_P, torch.from_numpy(index_P).to(self._chosen_LNK.device))

    def experts(self, layer: int, index_P: Ints, place_P: Tensor, preference_PE: Tensor) -> Tensor:
        """experts_PK (int64) of `layer`; the router is asked for tokens it was not asked for before. `place_P` is index_P as a tensor."""
        chosen_LNK = self._chosen_LNK
        before_PK = chosen_LNK[layer].index_select(0, place_P).long()
        if self._is_routed_LN[layer, index_P].all():
            return before_PK
        own_PK = TopK()(layer, preference_PE, chosen_LNK.shape[2])
        agreed_P = (own_PK.unsqueeze(1) == before_PK.unsqueeze(2)).sum((1, 2))
        chosen_PK = torch.where(before_PK < 0, own_PK, before_PK)
        chosen_LNK[layer].index_copy_(0, place_P, chosen_PK.to(chosen_LNK.dtype))
        self._agreed_LN[layer].index_copy_(0, place_P, agreed_P.to(self._agreed_LN.dtype))
        self._is_routed_LN[layer, index_P] = True
        return chosen_PK

    @property
    def mismatch(self) -> Mismatch:
        """Over the tokens computed so far, each forest token once."""
        agreed_M = self._agreed_LN[self._is_recorded_N.expand_as(self._agreed_LN) & (self._agreed_LN >= 0)]
        if not len(agreed_M):
            return Mismatch(0.0, 0.0)
        top_k = self._chosen_LNK.shape[2]
        return Mismatch(sets=(agreed_M < top_k).double().mean().item(), experts=1 - agreed_M.double().mean().item() / top_k)

    def counts_LE(self, multiplicity_N: Ints) -> Tensor:
        """Tokens of each layer's experts (float64, whole numbers) once all is computed, each as often as `multiplicity_N` says.

        With np.bincount(forest.paths_F), the number of samples that pass a token, the counts are those of the samples one by one.
        """
        weight_M = torch.from_numpy(multiplicity_N).to(self._chosen_LNK.device, torch.float64).repeat_interleave(self._chosen_LNK.shape[2])
        size = self._num_experts + 1  # the first counts what no layer has computed
        counts = [torch.bincount(chosen_NK.flatten().int() + 1, weight_M, minlength=size)[1:] for chosen_NK in self._chosen_LNK]
        return torch.stack(counts)


@dataclass(frozen=True, eq=False)
class _PartRoute:
    """Routes of some forest tokens, in the order of a forward pass; a Route (models/routing.py)."""

    routes: ReplayedRoutes
    """Those of the whole forest."""
    index_P: Ints
    """The tokens of this pass."""
    place_P: Tensor
    """index_P on the device."""

    def __call__(self, layer: int, preference_TE: Tensor, top_k: int) -> Tensor:
        """See Route."""
        return self.routes.experts(layer, self.index_P, self.place_P, preference_TE)


def _check_experts(routes_MK: Records, layer: int, num_experts: int) -> None:
    sets_MK = np.sort(routes_MK)
    if (largest := int(sets_MK[:, -1].max())) >= num_experts:
        raise TrainerError(f"a recorded route names expert {largest}, the model has {num_experts}; the samples are of another model")
    is_twice_M = (sets_MK[:, 1:] == sets_MK[:, :-1]).any(axis=1)
    if is_twice_M.any():
        raise TrainerError(f"a recorded route of layer {layer} names an expert twice: {routes_MK[is_twice_M.argmax()].tolist()}")
