"""What a target recorded, and whether it is what the engine sampled. Owns the check; reads no target.

Every maximal run of trained tokens in a row must be one draw: the same tokens in the same context with the same
log-probabilities, each draw at most once. What the engine handed out and no row trains must be counted as dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from trunkline.bench.conformance.engine import Draw

LOGPROB_TOLERANCE = 1e-6
"""Single precision and JSON keep the engine's log-probabilities exactly; a record may keep six decimals."""


@dataclass(frozen=True)
class Row:
    """One training sample: a context with the tokens in it that are trained."""

    token_ids: tuple[int, ...]
    """All of it."""
    trained: tuple[bool, ...]
    """Aligned: this token carries a loss."""
    logprobs: tuple[float, ...]
    """Aligned; read where trained."""

    def __post_init__(self) -> None:
        lengths = {len(self.token_ids), len(self.trained), len(self.logprobs)}
        if len(lengths) > 1:
            raise ValueError(f"a row's streams must have one length, got {sorted(lengths)}")

    @classmethod
    def of_call(cls, prompt_ids: Sequence[int], token_ids: Sequence[int], logprobs: Sequence[float], *, is_trained: bool = True) -> Row:
        """A prompt and its completion. Raises ValueError if log-probabilities are missing."""
        padding = len(prompt_ids)
        trained = (False,) * padding + (is_trained,) * len(token_ids)
        return cls((*prompt_ids, *token_ids), trained, (0.0,) * padding + tuple(logprobs))

    def spans(self) -> Iterator[tuple[int, int]]:
        """Maximal runs [start, end) of trained tokens."""
        start = None
        for place, is_trained in enumerate((*self.trained, False)):
            if is_trained and start is None:
                start = place
            elif not is_trained and start is not None:
                yield start, place
                start = None


@dataclass(frozen=True)
class Dropped:
    """Sampled tokens that the target counts and does not train."""

    reason: str
    """Its own word."""
    num_tokens: int | None
    """How many; None if it counts calls only."""


@dataclass(frozen=True)
class Record:
    """All that a target has of one session."""

    rows: tuple[Row, ...]
    """What its trainer would get."""
    dropped: tuple[Dropped, ...] = ()
    """What it counts as dropped."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Anything else, for people."""

    @classmethod
    def from_json(cls, content: Any) -> Record:
        """From a bridge's answer (bridges/bridge.py). Raises ValueError if it is none."""
        try:
            rows = tuple(Row(tuple(one["token_ids"]), tuple(map(bool, one["trained"])), tuple(one["logprobs"])) for one in content["rows"])
            dropped = tuple(Dropped(str(one["reason"]), one.get("num_tokens")) for one in content.get("dropped", ()))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a record: {error!r} in {str(content)[:200]}") from error
        return cls(rows, dropped, dict(content.get("notes") or {}))


def problems(draws: Sequence[Draw], record: Record) -> list[str]:
    """What is wrong with a record of these draws; nothing if it is exact."""
    found: list[str] = []
    unmatched = list(draws)
    num_untrained = 0
    for number, row in enumerate(record.rows):
        for start, end in row.spans():
            drawn = _match(unmatched, row, start, end)
            if drawn is None:
                found.append(f"row {number}: {_why_not(draws, unmatched, row, start, end)}")
                continue
            unmatched.remove(drawn)
            num_untrained += len(drawn.token_ids) - (end - start)
            if not drawn.is_policy:
                found.append(f"row {number} trains tokens drawn at temperature {drawn.temperature:g}, top_p {drawn.top_p:g}")
    num_untrained += sum(len(drawn.token_ids) for drawn in unmatched)
    if num_untrained and not _covers(record.dropped, num_untrained, len(unmatched)):
        counted = sum(one.num_tokens or 0 for one in record.dropped)
        found.append(f"{num_untrained} sampled tokens are neither trained nor counted as dropped ({counted} are counted)")
    return found


def _match(draws: Sequence[Draw], row: Row, start: int, end: int) -> Draw | None:
    """A draw that begins with this span; the whole of it if there is one."""
    candidates = [drawn for drawn in draws if _holds(drawn, row, start, end)]
    return min(candidates, key=lambda drawn: len(drawn.token_ids), default=None)


def _holds(drawn: Draw, row: Row, start: int, end: int) -> bool:
    size = end - start
    return (
        drawn.token_ids[:size] == row.token_ids[start:end]
        and drawn.prompt_ids == row.token_ids[:start]
        and _max_difference(drawn, row, start, end) <= LOGPROB_TOLERANCE
    )


def _max_difference(drawn: Draw, row: Row, start: int, end: int) -> float:
    pairs = zip(drawn.logprobs, row.logprobs[start:end], strict=False)
    return max((abs(said - kept) if math.isfinite(kept) else math.inf for said, kept in pairs), default=0.0)


def _why_not(draws: Sequence[Draw], unmatched: Sequence[Draw], row: Row, start: int, end: int) -> str:
    """The nearest miss, in words."""
    if _match(draws, row, start, end) is not None and _match(unmatched, row, start, end) is None:
        return f"trains {end - start} tokens a second time"
    size, context, sampled = end - start, row.token_ids[:start], row.token_ids[start:end]
    same = [drawn for drawn in draws if drawn.token_ids[:size] == sampled]
    here = [drawn for drawn in same if drawn.prompt_ids == context]
    if here:
        worst = min(_max_difference(drawn, row, start, end) for drawn in here)
        return f"log-probabilities of {size} trained tokens differ from the engine's by up to {worst:.3g}"
    if same:
        place = max(_num_common(drawn.prompt_ids, context) for drawn in same)
        return f"{size} trained tokens stand in a context that the engine never saw (it differs from token {place} on)"
    return f"trains {size} tokens that the engine did not sample in one draw"


def _num_common(left: Sequence[int], right: Sequence[int]) -> int:
    return next((place for place, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), min(len(left), len(right)))


def _covers(dropped: Sequence[Dropped], num_tokens: int, num_draws: int) -> bool:
    if sum(one.num_tokens or 0 for one in dropped) >= num_tokens:
        return True
    return sum(one.num_tokens is None for one in dropped) >= max(1, num_draws)
