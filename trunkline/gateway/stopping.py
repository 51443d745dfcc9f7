"""A client's stop strings: where a sampled completion ends by them. Owns no sampling; engines know token ids only.

Tokens are sampled until the model stops by itself; what came after the stop string is thrown away and counted. The rest is a
sample of the policy under the rule "until the text holds this string", which looks at nothing later, so it may be trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from trunkline.types import Generation, Message, VersionSpan


class Stopped(NamedTuple):
    """A generation up to its stop string."""

    generation: Generation
    """Its last token is the one that completed the stop string."""
    num_discarded: int
    """Tokens after it."""
    stop_string: str | None
    """Which; None if none occurs."""


def stop_at(generation: Generation, stop: Sequence[str], text: Callable[[Sequence[int]], str]) -> Stopped:
    """Cut after the first token by which the text holds a stop string; of several the one that begins first."""
    token_ids = generation.token_ids
    found = first_stop(text(token_ids), stop) if stop else None
    if found is None:
        return Stopped(generation, 0, None)
    low, high = 1, len(token_ids)  # the fewest tokens whose text holds it
    while low < high:
        middle = (low + high) // 2
        if first_stop(text(token_ids[:middle]), (found,)) is None:
            low = middle + 1
        else:
            high = middle
    spans = tuple(VersionSpan(span.start, min(span.end, low), span.version) for span in generation.version_spans if span.start < low)
    num_discarded = len(token_ids) - low
    routes = generation.routes
    kept = replace(
        generation,
        token_ids=token_ids[:low],
        logprobs=generation.logprobs[:low],
        finish_reason="stop",
        version_spans=spans,
        routes=None if routes is None else routes.rows(routes.first, routes.first + routes.num_tokens - num_discarded),
    )
    return Stopped(kept, num_discarded, found)


def first_stop(text: str, stop: Sequence[str]) -> str | None:
    """The stop string that begins first in the text; None if none does."""
    places = [(place, string) for string in stop if (place := text.find(string)) >= 0]
    return min(places)[1] if places else None


def without_stop(message: Message, stop_string: str) -> Message:
    """The answer without its stop string, as the APIs promise; calls come after the text and fall with it."""
    if stop_string in message.content:
        return replace(message, content=message.content[: message.content.index(stop_string)], tool_calls=())
    reasoning = message.reasoning.partition(stop_string)[0]
    return replace(message, reasoning=reasoning)
