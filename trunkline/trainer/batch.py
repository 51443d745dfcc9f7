"""Samples and demonstrations as aligned flat arrays, and as npz bytes on the wire. Owns the format; no torch, no pickle."""

# S sequences, F tokens of all sequences laid end to end, M batches, R recorded routes, L layers, K experts a token and layer

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trunkline.errors import TrainerError
from trunkline.types import Demonstration, RoutedExperts, TrainSample

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Experts = NDArray[np.uint16]

_Scalar = TypeVar("_Scalar", bound=np.generic)

_NO_ROUTE = -1
_ROUTES = ("route_of_F", "routes_RLK")


@dataclass(frozen=True, eq=False)
class SampleBatch:
    """The samples of one RL step."""

    lengths_S: Ints
    """Tokens of each sample."""
    temperatures_S: Floats
    """Sampling temperature of each sample."""
    token_ids_F: Ints
    """Prompts and responses."""
    mask_F: Bools
    """True where trained."""
    logprobs_F: Floats
    """Recorded at sampling."""
    advantages_F: Floats
    """Credit of each token."""
    is_current_S: Bools
    """True where the weights that the step starts from sampled all of the sample."""
    route_of_F: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """Row of each token's recorded route in routes_RLK, -1 where there is none; nothing given: none anywhere."""
    routes_RLK: Experts = field(default_factory=lambda: np.empty((0, 0, 0), np.uint16))
    """Every recorded route once; samples that share a record share its rows."""

    def __post_init__(self) -> None:
        _check_streams(self.lengths_S, token_ids=self.token_ids_F, mask=self.mask_F, logprobs=self.logprobs_F, advantages=self.advantages_F)
        if len(self.temperatures_S) != len(self.lengths_S) or not (self.temperatures_S > 0).all():
            raise TrainerError("each sample needs one positive temperature; greedy samples are not trained")
        if len(self.is_current_S) != len(self.lengths_S):
            raise TrainerError(f"is_current must have {len(self.lengths_S)} entries, one a sample; got {len(self.is_current_S)}")
        _check_first_tokens(self.lengths_S, self.mask_F, "mask")
        if not np.isfinite(self.logprobs_F).all():
            raise TrainerError("recorded log-probabilities must be finite: a token of probability 0 cannot have been sampled")
        if not len(self.route_of_F):
            object.__setattr__(self, "route_of_F", np.full(len(self.token_ids_F), _NO_ROUTE, np.int64))
        _check_routes(self.route_of_F, self.routes_RLK, num_tokens=len(self.token_ids_F))

    @classmethod
    def from_samples(cls, samples: Sequence[TrainSample]) -> SampleBatch:
        """Lays the samples end to end. Raises TrainerError on routes of different shapes, or of more tokens than a sample has."""
        lengths_S = np.array([len(sample.token_ids) for sample in samples], dtype=np.int64)
        return cls(
            lengths_S=lengths_S,
            temperatures_S=np.array([sample.temperature for sample in samples], dtype=np.float64),
            token_ids_F=_flat([sample.token_ids for sample in samples], np.int64),
            mask_F=_flat([sample.mask for sample in samples], np.bool_),
            logprobs_F=_flat([sample.logprobs for sample in samples], np.float64),
            advantages_F=_flat([sample.advantages for sample in samples], np.float64),
            is_current_S=np.array([sample.is_current for sample in samples], dtype=np.bool_),
            **_lay_out_routes([sample.routes for sample in samples], lengths_S),
        )

    def sequences(self) -> list[Ints]:
        """Each sample's token ids."""
        return _split(self.token_ids_F, self.lengths_S)

    def to_bytes(self) -> bytes:
        """npz: one array a field; none of routes where there are none."""
        return _pack(**{name: array for name, array in vars(self).items() if name not in _ROUTES or len(self.routes_RLK)})

    @classmethod
    def from_bytes(cls, body: bytes) -> SampleBatch:
        """The inverse of to_bytes. Raises TrainerError on anything else."""
        return cls(**_unpack(body, tuple(name for name in cls.__dataclass_fields__ if name not in _ROUTES), optional=_ROUTES))


@dataclass(frozen=True, eq=False)
class DemonstrationBatch:
    """The demonstrations of one supervised step."""

    lengths_S: Ints
    """Tokens of each demonstration."""
    token_ids_F: Ints
    """Rendered conversations."""
    weights_F: Floats
    """Loss weight of each token."""

    def __post_init__(self) -> None:
        _check_streams(self.lengths_S, token_ids=self.token_ids_F, weights=self.weights_F)
        _check_first_tokens(self.lengths_S, self.weights_F, "weights")

    @classmethod
    def from_demonstrations(cls, demonstrations: Sequence[Demonstration]) -> DemonstrationBatch:
        """Lays the demonstrations end to end."""
        return cls(
            lengths_S=np.array([len(demonstration.token_ids) for demonstration in demonstrations], dtype=np.int64),
            token_ids_F=_flat([demonstration.token_ids for demonstration in demonstrations], np.int64),
            weights_F=_flat([demonstration.weights for demonstration in demonstrations], np.float64),
        )

    def sequences(self) -> list[Ints]:
        """Each demonstration's token ids."""
        return _split(self.token_ids_F, self.lengths_S)


def pack_demonstrations(batches: Sequence[Sequence[Demonstration]]) -> bytes:
    """Several batches of demonstrations, one optimiser step each, as npz bytes."""
    joined = DemonstrationBatch.from_demonstrations(list(chain.from_iterable(batches)))
    sizes_M = np.array([len(batch) for batch in batches], dtype=np.int64)
    return _pack(**vars(joined), sizes_M=sizes_M)


def unpack_demonstrations(body: bytes) -> list[DemonstrationBatch]:
    """The inverse of pack_demonstrations. Raises TrainerError on anything else."""
    arrays = _unpack(body, (*DemonstrationBatch.__dataclass_fields__, "sizes_M"))
    sizes_M = arrays.pop("sizes_M")
    joined = DemonstrationBatch(**arrays)
    if (sizes_M < 1).any() or sizes_M.sum() != len(joined.lengths_S):
        raise TrainerError(f"batch sizes {sizes_M.tolist()} do not add up to {len(joined.lengths_S)} demonstrations; no batch may be empty")
    lengths = _split(joined.lengths_S, sizes_M)
    num_tokens_M = np.array([length.sum() for length in lengths], dtype=np.int64)
    pieces = zip(lengths, _split(joined.token_ids_F, num_tokens_M), _split(joined.weights_F, num_tokens_M), strict=True)
    return [DemonstrationBatch(*piece) for piece in pieces]


def _lay_out_routes(records_S: Sequence[Sequence[RoutedExperts]], lengths_S: Ints) -> dict[str, NDArray[Any]]:
    """Each record (object) once in routes_RLK; where two records of a sample overlap, the first counts. Nothing without records."""
    records = {id(record): record for records in records_S for record in records}
    if not records:
        return {}
    shapes = sorted({(record.num_layers, record.top_k) for record in records.values()})
    if len(shapes) > 1:
        raise TrainerError(f"recorded routes of one step must have one shape (layers, experts a token), got {shapes}: two models'")
    sizes = [record.num_tokens for record in records.values()]
    first_row = dict(zip(records, np.cumsum([0, *sizes]).tolist(), strict=False))
    route_of_F = np.full(lengths_S.sum(), _NO_ROUTE, dtype=np.int64)
    for route_of_T, records_of_sample in zip(_split(route_of_F, lengths_S), records_S, strict=True):
        for record in reversed(records_of_sample):
            first, end, row = record.first, record.first + record.num_tokens, first_row[id(record)]
            if end > len(route_of_T):
                raise TrainerError(f"a sample of {len(route_of_T)} tokens has routes of the places {first}..{end - 1}; they are of another")
            route_of_T[first:end] = np.arange(row, row + record.num_tokens)
    routes_RLK = np.frombuffer(b"".join(record.data for record in records.values()), "<u2").reshape(-1, *shapes[0])
    return {"route_of_F": route_of_F, "routes_RLK": routes_RLK}


def _check_routes(route_of_F: Ints, routes_RLK: Experts, *, num_tokens: int) -> None:
    if len(route_of_F) != num_tokens:
        raise TrainerError(f"route_of_F must have {num_tokens} entries, one a token, or none at all; got {len(route_of_F)}")
    if routes_RLK.ndim != 3 or routes_RLK.dtype != np.uint16:
        raise TrainerError(f"routes_RLK must be uint16 in [record, layer, choice], got {routes_RLK.dtype} of shape {routes_RLK.shape}")
    if not _NO_ROUTE <= route_of_F.min() <= route_of_F.max() < len(routes_RLK):
        raise TrainerError(f"route_of_F must lie in -1..{len(routes_RLK) - 1}, got {route_of_F.min()}..{route_of_F.max()}")


def _flat(streams: Sequence[Sequence[float]], dtype: type[_Scalar]) -> NDArray[_Scalar]:
    return np.fromiter(chain.from_iterable(streams), dtype=dtype, count=sum(map(len, streams)))


def _split(stream: NDArray[_Scalar], sizes: Ints) -> list[NDArray[_Scalar]]:
    ends = np.cumsum(sizes).tolist()
    return [stream[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _check_streams(lengths_S: Ints, **streams: NDArray[np.generic]) -> None:
    found = {name: len(stream) for name, stream in streams.items()}
    if not len(lengths_S) or (lengths_S < 1).any():
        raise TrainerError(f"a step needs at least one sequence of at least one token, got lengths {lengths_S[:8].tolist()}")
    if set(found.values()) != {int(lengths_S.sum())}:
        raise TrainerError(f"token streams must have {int(lengths_S.sum())} entries, the sum of lengths; got {found}")


def _check_first_tokens(lengths_S: Ints, stream_F: NDArray[np.generic], name: str) -> None:
    if np.any(stream_F[np.cumsum(lengths_S) - lengths_S]):
        raise TrainerError(f"the first token of a sequence has no context and cannot be trained; clear its {name}")


def _pack(**arrays: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _unpack(body: bytes, names: tuple[str, ...], *, optional: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as archive:
            return {name: archive[name] for name in (*names, *(one for one in optional if one in archive))}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise TrainerError(f"the body is not an npz archive with {', '.join(names)}: {error}") from error
