"""The running requests as arrays, one row each. Owns their layout; what happens to a row is the scheduler's. No torch."""

# R rows, X tokens of a row (prompt, then completion), S stop tokens

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trunkline.engine.prefix_tree import Node
from trunkline.engine.route_memory import RouteMemory
from trunkline.engine.slots import Ints
from trunkline.types import FinishReason, Generation, GenerationRequest, PolicyVersion, VersionSpan

_FIRST_WIDTH = 256
_NO_TOKEN = -1


@dataclass(slots=True)
class Running:
    """What a row keeps beside its arrays."""

    request: GenerationRequest
    """As asked."""
    node: Node
    """The referenced end of that part of the row whose slots belong to the tree; later slots are the row's own."""
    version_starts: list[tuple[int, PolicyVersion]]
    """First completion token under each policy version so far. More than one: the keys are mixed and are not shared."""


class Rows:
    """Dense: rows [0, num_rows) run. Columns are numpy arrays, so that a step touches all rows without a Python loop."""

    def __init__(self, max_rows: int, max_tokens: int) -> None:
        self.max_rows, self.max_tokens = max_rows, max_tokens
        self.running: list[Running] = []
        width = min(_FIRST_WIDTH, max_tokens)
        self.token_ids_RX: Ints = np.zeros((max_rows, width), np.int64)
        self.slots_RX: Ints = np.zeros((max_rows, width), np.int64)
        self.logprobs_RX = np.zeros((max_rows, width))
        self.num_tokens_R: Ints = np.zeros(max_rows, np.int64)
        """Tokens known: prompt and sampled."""
        self.num_computed_R: Ints = np.zeros(max_rows, np.int64)
        """Tokens whose keys and values lie in their slots."""
        self.num_prompt_R: Ints = np.zeros(max_rows, np.int64)
        self.limit_R: Ints = np.zeros(max_rows, np.int64)
        """Tokens at which the row is full."""
        self.temperature_R = np.ones(max_rows)
        self.top_p_R = np.ones(max_rows)
        self.seed_R = np.zeros(max_rows, np.uint64)
        self.stop_ids_RS: Ints = np.full((max_rows, 4), _NO_TOKEN)

    @property
    def num_rows(self) -> int:
        """How many requests run."""
        return len(self.running)

    @property
    def num_slots_due(self) -> int:
        """Slots that the running rows may still take; a row's last token needs none."""
        rows = slice(self.num_rows)
        return int((self.limit_R[rows] - 1 - self.num_computed_R[rows]).sum())

    def add(self, running: Running, slots: Ints, *, limit: int) -> int:
        """A new row whose first len(slots) tokens are computed; returns its index."""
        row, request = self.num_rows, running.request
        num_prompt = len(request.token_ids)
        self._widen(limit, len(request.sampling.stop_token_ids))
        self.running.append(running)
        self.token_ids_RX[row, :num_prompt] = request.token_ids
        self.slots_RX[row, : len(slots)] = slots
        self.num_tokens_R[row] = self.num_prompt_R[row] = num_prompt
        self.num_computed_R[row] = len(slots)
        self.limit_R[row] = limit
        self.temperature_R[row] = request.sampling.temperature
        self.top_p_R[row] = request.sampling.top_p
        self.seed_R[row] = request.sampling.seed
        self.stop_ids_RS[row] = _NO_TOKEN
        self.stop_ids_RS[row, : len(request.sampling.stop_token_ids)] = request.sampling.stop_token_ids
        return row

    def remove(self, rows: Iterable[int]) -> None:
        """The last rows move into the gaps."""
        for row in sorted(rows, reverse=True):
            moved, last = self.running.pop(), self.num_rows
            if row == last:
                continue
            self.running[row] = moved
            known = slice(int(self.num_tokens_R[last]))
            for matrix_RX in (self.token_ids_RX, self.slots_RX, self.logprobs_RX):
                matrix_RX[row, known] = matrix_RX[last, known]
            for column_R in self._columns():
                column_R[row] = column_R[last]

    def generation(self, row: int, finish_reason: FinishReason, memory: RouteMemory | None) -> Generation:
        """What was sampled in this row, with the routes that `memory` has of it; its slots are not given back yet."""
        first, end = int(self.num_prompt_R[row]), int(self.num_tokens_R[row])
        starts = self.running[row].version_starts
        stops = [*(start for start, _ in starts[1:]), end - first]
        spans = (VersionSpan(start, stop, version) for (start, version), stop in zip(starts, stops, strict=True))
        return Generation(
            tuple(self.token_ids_RX[row, first:end].tolist()),
            tuple(self.logprobs_RX[row, first:end].tolist()),
            finish_reason,
            tuple(span for span in spans if span.end > span.start),
            None if memory is None else memory.report(self.slots_RX[row, : self.num_computed_R[row]], num_prompt=first),
        )

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return (
            self.num_tokens_R,
            self.num_computed_R,
            self.num_prompt_R,
            self.limit_R,
            self.temperature_R,
            self.top_p_R,
            self.seed_R,
            self.stop_ids_RS,
        )

    def _widen(self, num_tokens: int, num_stops: int) -> None:
        width = self.token_ids_RX.shape[1]
        if num_tokens > width:
            width = min(max(num_tokens, 2 * width), self.max_tokens)
            self.token_ids_RX = _widened(self.token_ids_RX, width)
            self.slots_RX = _widened(self.slots_RX, width)
            self.logprobs_RX = _widened(self.logprobs_RX, width)
        if num_stops > self.stop_ids_RS.shape[1]:
            missing = num_stops - self.stop_ids_RS.shape[1]
            self.stop_ids_RS = np.pad(self.stop_ids_RS, ((0, 0), (0, missing)), constant_values=_NO_TOKEN)


def _widened(matrix_RX: NDArray[Any], width: int) -> NDArray[Any]:
    """With zeros on the right, which take no memory before they are written."""
    wider_RX = np.zeros((len(matrix_RX), width), matrix_RX.dtype)
    wider_RX[:, : matrix_RX.shape[1]] = matrix_RX
    return wider_RX
