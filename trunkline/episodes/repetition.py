"""Repetition in one completion, on its token ids: loops, and sequences that come again. Owns the measure; pure numpy."""

# T sampled tokens of one completion

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LONGEST_PERIOD = 64
"""Tokens of a loop's body at most."""
FEWEST_ROUNDS = 4
"""Of a loop."""
FEWEST_LOOP_TOKENS = 32
"""Of a loop with all its rounds: a ruler or a row of zeros is shorter."""
LEAST_LOOP_SHARE = 0.5
"""Of the completion: an answer may hold a monotonous table or a ruler; what degenerates goes on to its limit."""
NGRAM = 8
"""Tokens of a sequence that is looked for again."""
FEWEST_TOKENS = 64
"""Of a completion whose sequences are counted."""
LEAST_NGRAM_SHARE = 0.5
"""Of its sequences that must have come before."""


@dataclass(frozen=True)
class Repetition:
    """What repeats in a completion."""

    share: float
    """Of its tokens, in (0, 1]."""
    num_tokens: int
    """Tokens that repeat; of a loop all of it."""
    period: int
    """Tokens of a loop's body; 0 if it is no loop."""
    start: int
    """The loop's first token."""


def repetition(token_ids: Sequence[int]) -> Repetition | None:
    """The loop that covers most, else sequences that come again; None if a completion is not repetitive by the thresholds above."""
    ids_T = np.asarray(token_ids, dtype=np.int64)
    return _loop(ids_T) or _again(token_ids)


def _loop(ids_T: np.ndarray) -> Repetition | None:
    best: Repetition | None = None
    for period in range(1, min(LONGEST_PERIOD, len(ids_T) // FEWEST_ROUNDS) + 1):
        start, end = _longest_run(ids_T[period:] == ids_T[:-period])
        num_tokens = end - start + period  # equal to what is one period before: the first round has nothing before it
        share = num_tokens / len(ids_T)
        is_loop = num_tokens >= max(FEWEST_LOOP_TOKENS, FEWEST_ROUNDS * period) and share >= LEAST_LOOP_SHARE
        if is_loop and (best is None or num_tokens > best.num_tokens):
            best = Repetition(share, num_tokens, period, start)
    return best


def _longest_run(is_equal: np.ndarray) -> tuple[int, int]:
    """First and one past the last index of the longest run of True; (0, 0) without any."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], is_equal.astype(np.int8), [0]))))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    longest = int(np.argmax(ends - starts))
    return int(starts[longest]), int(ends[longest])


def _again(token_ids: Sequence[int]) -> Repetition | None:
    if len(token_ids) < FEWEST_TOKENS:
        return None
    seen: set[tuple[int, ...]] = set()
    num_again = 0
    for start in range(len(token_ids) - NGRAM + 1):
        sequence = tuple(token_ids[start : start + NGRAM])
        num_again += sequence in seen
        seen.add(sequence)
    share = num_again / (len(token_ids) - NGRAM + 1)
    return Repetition(share, num_again, 0, 0) if share >= LEAST_NGRAM_SHARE else None
