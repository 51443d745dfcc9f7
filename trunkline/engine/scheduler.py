"""Which tokens of which requests a step computes. Owns queue, rows, slots and prefixes; runs no model. No torch.

    waiting ──admit──► rows ──schedule──► Step ──(model, sampler)──► postprocess ──► finished generations
                │ match     │ append, follow                             │ insert
                └───────────┴───────── prefix tree ◄─────────────────────┘

A request is admitted once its worst case (prompt and all of max_tokens) fits into the slots that are free, evictable and
not yet due to running rows. So a row never runs out of slots, and nothing is ever preempted. Requests are admitted in
order; at most one row is in the middle of its prompt, since none is admitted before the one ahead has all its tokens in a
step. Every token enters the tree in the step that computes it, so a context is computed once for all rows that hold it, now
or later: attempts at one task share not only their prompt but all that they happened to sample alike. A row that lives
through a change of weights leaves the tree: its keys are of two policies, and its next tokens are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trunkline.engine.prefix_tree import PrefixTree
from trunkline.engine.route_memory import RouteMemory
from trunkline.engine.rows import Rows, Running
from trunkline.engine.slots import FreeSlots, Ints
from trunkline.errors import EngineError
from trunkline.types import FinishReason, Generation, GenerationRequest, PolicyVersion


@dataclass(frozen=True)
class Step:
    """What one forward pass computes: T new tokens of B rows, flat, row after row."""

    token_ids_T: Ints
    """The tokens."""
    positions_T: Ints
    """Their positions in their sequences."""
    slots_T: Ints
    """Where their keys and values go."""
    start_B: Ints
    """Each row's first flat token."""
    count_B: Ints
    """Each row's new tokens."""
    sampling_rows_N: Ints
    """Rows whose last known token is computed, now or earlier by another row: they sample the next."""


@dataclass
class EngineStats:
    """Counters since the start."""

    num_computed: int = 0
    """Tokens put through the model."""
    num_reused: int = 0
    """Prompt tokens that were found in the tree."""
    num_merged: int = 0
    """Sampled tokens whose turn to be computed came, and which were found in the tree."""
    num_sampled: int = 0
    """Tokens sampled."""
    num_steps: int = 0
    """Forward passes."""


@dataclass(frozen=True)
class Finished:
    """A request that left the engine."""

    request_id: str
    """As asked."""
    generation: Generation
    """What was sampled."""


@dataclass
class Scheduler:
    """Continuous batching over a prefix tree."""

    version: PolicyVersion
    """The policy that samples now."""
    max_context: int
    """Most tokens of prompt and completion together."""
    max_batch: int
    """Most rows."""
    num_slots: int
    """Slots of the cache."""
    max_step_tokens: int
    """Most new tokens of a step; a longer prompt is computed in chunks. At least max_batch."""
    routes: RouteMemory | None = None
    """Of a sparse model whose calls report routes."""
    stats: EngineStats = field(default_factory=EngineStats)
    """Counters."""

    def __post_init__(self) -> None:
        self.free = FreeSlots(self.num_slots)
        self.tree = PrefixTree(self.free)
        self.rows = Rows(self.max_batch, self.max_context)
        self.waiting: dict[str, GenerationRequest] = {}
        self._ids_in_rows: set[str] = set()

    @property
    def has_work(self) -> bool:
        """Whether a step would compute anything."""
        return bool(self.waiting) or self.rows.num_rows > 0

    def add(self, request: GenerationRequest) -> None:
        """Queues a request. Raises EngineError if it can never run."""
        num_prompt = len(request.token_ids)
        if request.request_id in self.waiting or request.request_id in self._ids_in_rows:
            raise EngineError(f"request {request.request_id!r} is running already; request ids are unique")
        if not 0 < num_prompt < self.max_context:
            raise EngineError(f"the prompt must have 1..{self.max_context - 1} tokens (the model's context less one), got {num_prompt}")
        if self._limit(request) - 1 > self.num_slots:
            raise EngineError(
                f"prompt and max_tokens may need {self._limit(request) - 1} cache slots, there are {self.num_slots}; "
                "lower max_tokens or raise --max-cached-tokens"
            )
        self.waiting[request.request_id] = request

    def abort(self, request_ids: Sequence[str]) -> list[Finished]:
        """Ends those of the requests that are here; the others have ended already."""
        wanted = set(request_ids)
        finished = [Finished(name, Generation((), (), "abort", ())) for name in wanted if self.waiting.pop(name, None)]
        rows = [row for row, running in enumerate(self.rows.running) if running.request.request_id in wanted]
        return finished + self._finish(rows, ["abort"] * len(rows))

    def change_version(self, version: PolicyVersion) -> None:
        """From here on tokens count as sampled by `version`; what earlier policies computed is matched no more."""
        if version == self.version:
            return
        self.tree.retire(self.version)
        self.version = version
        for row, running in enumerate(self.rows.running):
            running.version_starts.append((int(self.rows.num_tokens_R[row] - self.rows.num_prompt_R[row]), version))

    def schedule(self) -> Step | None:
        """Takes slots for the next tokens of all rows and of new requests; None if there is nothing to do."""
        rows = self.rows
        count_B = np.zeros(self.max_batch, np.int64)
        pending_B = rows.num_tokens_R[: rows.num_rows] - rows.num_computed_R[: rows.num_rows]
        decoding = np.flatnonzero(pending_B == 1).tolist()
        slots = self._take(len(decoding)).tolist()
        for row in decoding:
            count_B[row] = self._place_sampled(row, slots)
        self.free.give(np.array(slots, np.int64))
        budget = self.max_step_tokens - len(decoding)
        for row in np.flatnonzero(pending_B > 1).tolist():
            count_B[row] = self._place_prompt(row, budget)
            budget -= int(count_B[row])
        while budget > 0 and (admitted := self._admit()) is not None:
            count_B[admitted] = self._place_prompt(admitted, budget)
            budget -= int(count_B[admitted])
        return self._flatten(count_B[: rows.num_rows]) if rows.num_rows else None

    def postprocess(self, step: Step, token_ids_N: Ints, logprobs_N: NDArray[np.float64]) -> list[Finished]:
        """Appends the sampled tokens to their rows, and takes out the rows that are done."""
        rows, sampling_N = self.rows, step.sampling_rows_N
        rows.num_computed_R[: len(step.count_B)] += step.count_B
        ends_N = rows.num_tokens_R[sampling_N]
        rows.token_ids_RX[sampling_N, ends_N] = token_ids_N
        rows.logprobs_RX[sampling_N, ends_N] = logprobs_N
        rows.num_tokens_R[sampling_N] += 1
        self.stats.num_steps += 1
        self.stats.num_computed += len(step.token_ids_T)
        self.stats.num_sampled += len(sampling_N)
        is_stopped_N = (rows.stop_ids_RS[sampling_N] == token_ids_N[:, None]).any(1)
        is_done_N = is_stopped_N | (rows.num_tokens_R[sampling_N] >= rows.limit_R[sampling_N])
        reasons: list[FinishReason] = ["stop" if is_stopped else "length" for is_stopped in is_stopped_N[is_done_N]]
        return self._finish(sampling_N[is_done_N].tolist(), reasons)

    def _admit(self) -> int | None:
        """A row for the first waiting request, if there is room for all that it may need."""
        if not self.waiting or self.rows.num_rows == self.max_batch:
            return None
        name, request = next(iter(self.waiting.items()))
        limit = self._limit(request)
        match = self.tree.match(self.version, request.token_ids)
        num_needed = limit - 1 - len(match.slots)
        if len(self.free) + self.tree.num_evictable - self.rows.num_slots_due < num_needed:
            self.tree.release(match.node)
            return None
        del self.waiting[name]
        self._ids_in_rows.add(name)
        self.stats.num_reused += len(match.slots)
        return self.rows.add(Running(request, match.node, [(0, self.version)]), match.slots, limit=limit)

    def _place_sampled(self, row: int, free_slots: list[int]) -> int:
        """A slot for the row's last token: that of another row that holds the same context (0 to compute), or a free one (1)."""
        rows, running = self.rows, self.rows.running[row]
        position = int(rows.num_computed_R[row])
        if running.node.depth != position or len(running.version_starts) > 1:
            rows.slots_RX[row, position] = free_slots.pop()
            return 1
        token_id = int(rows.token_ids_RX[row, position])
        found = self.tree.follow(running.node, token_id)
        if found is None:
            rows.slots_RX[row, position] = slot = free_slots.pop()
            running.node = self.tree.append(running.node, token_id, slot)
            return 1
        running.node = found
        rows.slots_RX[row, position] = found.slots[0]
        rows.num_computed_R[row] += 1
        self.stats.num_merged += 1
        return 0

    def _place_prompt(self, row: int, budget: int) -> int:
        """Slots for the row's next prompt tokens, at most `budget`; shared through the tree where that is possible."""
        rows, running = self.rows, self.rows.running[row]
        first = int(rows.num_computed_R[row])
        count = min(int(rows.num_tokens_R[row]) - first, budget)
        if count == 0:
            return 0  # the whole prompt was found
        slots = self._take(count)
        rows.slots_RX[row, first : first + count] = slots
        token_ids = running.request.token_ids[first : first + count]
        # A completion that ran ahead may have put these very tokens into the tree; from there on this row keeps its own.
        if running.node.depth == first and token_ids[0] not in running.node.children:
            running.node = self.tree.extend(running.node, token_ids, slots)
        return count

    def _flatten(self, count_B: Ints) -> Step:
        rows = self.rows
        num_rows = len(count_B)
        end_B = np.cumsum(count_B)
        row_T = np.repeat(np.arange(num_rows), count_B)
        first_B = rows.num_computed_R[:num_rows]
        positions_T = np.arange(len(row_T)) + np.repeat(first_B - end_B + count_B, count_B)
        return Step(
            token_ids_T=rows.token_ids_RX[row_T, positions_T],
            positions_T=positions_T,
            slots_T=rows.slots_RX[row_T, positions_T],
            start_B=end_B - count_B,
            count_B=count_B,
            sampling_rows_N=np.flatnonzero(first_B + count_B == rows.num_tokens_R[:num_rows]),
        )

    def _finish(self, row_indices: Sequence[int], reasons: Sequence[FinishReason]) -> list[Finished]:
        finished = []
        for row, reason in zip(row_indices, reasons, strict=True):
            running = self.rows.running[row]
            finished.append(Finished(running.request.request_id, self.rows.generation(row, reason, self.routes)))
            self._ids_in_rows.remove(running.request.request_id)
            own = slice(running.node.depth, int(self.rows.num_computed_R[row]))
            own_slots = self.rows.slots_RX[row, own].copy()
            if len(running.version_starts) == 1:
                self.tree.insert(running.node, tuple(self.rows.token_ids_RX[row, own].tolist()), own_slots)
            else:
                self.free.give(own_slots)
            self.tree.release(running.node)
        self.rows.remove(row_indices)
        return finished

    def _take(self, count: int) -> Ints:
        if count > len(self.free):
            self.tree.evict(count - len(self.free))
        return self.free.take(count)

    def _limit(self, request: GenerationRequest) -> int:
        return min(len(request.token_ids) + request.sampling.max_tokens, self.max_context)
