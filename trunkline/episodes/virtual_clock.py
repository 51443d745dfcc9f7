"""How long an attempt takes if tools take what they declare and tokens a fixed time. Owns the path over its calls; no wall time.

    turn ──► tokens one after another ──► its tool calls side by side: the slowest counts ──► next turn
                                          └─► a sub-agent that a call began: its own turns ─┘

The clock is that of the record: calls in order of commit, their parents, messages. It does not depend on the machine, on load or on
how the agent runs its tools, so attempts can be compared, and nothing that an agent waits for by itself counts. Prompts cost nothing.

Two calls overlap only where the record shows that none needs the other's result. A completion begins

1. where it extends an earlier one, when the tool calls of that one are done, and the sub-agents begun by them that ended before it;
2. in a fresh context that was handed over by a tool call which is still open, when that call was written: a sub-agent;
3. otherwise, such as after a rewritten history, when all that was committed before is done: nothing is given for free.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.types import Completion, MessageNode, ToolSpec, walk_to

_FEWEST_REPEATED_CHARACTERS = 12
"""A sub-agent's context is a text of its caller's arguments, or holds one of at least this length: a name in it says nothing."""


@dataclass(frozen=True)
class CallTime:
    """When one completion happens, in seconds on the virtual clock."""

    start_s: float
    """Its first token is sampled."""
    end_s: float
    """Its last token has been sampled."""
    done_s: float
    """The tools that it calls have answered."""


def latencies(specs: Sequence[ToolSpec]) -> dict[str, float]:
    """Seconds that a call of each tool takes."""
    return {spec.name: spec.latency_s for spec in specs}


def completion_time(
    completions: Sequence[Completion], messages: Sequence[MessageNode], *, tool_s: Mapping[str, float], seconds_per_token: float
) -> float:
    """Seconds until all is done; 0 without completions. The arguments are `timeline`'s."""
    times = timeline(completions, messages, tool_s=tool_s, seconds_per_token=seconds_per_token)
    return max((time.done_s for time in times), default=0.0)


def timeline(
    completions: Sequence[Completion], messages: Sequence[MessageNode], *, tool_s: Mapping[str, float], seconds_per_token: float
) -> tuple[CallTime, ...]:
    """When each completion happens.

    Args:
        completions: an episode's, in order of commit.
        messages: its message tree.
        tool_s: seconds that a call of each tool takes; an unknown tool takes none.
        seconds_per_token: of each sampled token.
    """
    clock = _Clock(messages)
    for completion in completions:
        slowest = max((tool_s.get(call.name, 0.0) for call in messages[completion.reply_node].message.tool_calls), default=0.0)
        clock.add(completion, sampling_s=completion.num_sampled * seconds_per_token, tools_s=slowest)
    return tuple(clock.times)


class _Clock:
    """Places completions one after another; `caller` of a sub-agent's completion is the one whose tool call began it."""

    def __init__(self, messages: Sequence[MessageNode]) -> None:
        self._messages = messages
        self._completions: list[Completion] = []
        self._callers: list[int | None] = []
        self._places: dict[str, int] = {}
        self._open: dict[int, tuple[str, ...]] = {}
        self._told: set[int] = set()
        self.times: list[CallTime] = []

    def add(self, completion: Completion, *, sampling_s: float, tools_s: float) -> None:
        """The next one in order of commit."""
        walk = walk_to(completion.prompt_node, self._messages)
        start_s, caller = self._beginning(completion, walk)
        end_s = start_s + sampling_s
        place = len(self._completions)
        self.times.append(CallTime(start_s, end_s, end_s + tools_s))
        self._completions.append(completion)
        self._callers.append(caller)
        self._places[completion.completion_id] = place
        self._open[place] = _handed_over(self._messages[completion.reply_node])
        self._told.update(walk, (completion.reply_node,))

    def _beginning(self, completion: Completion, walk: Sequence[int]) -> tuple[float, int | None]:
        """When it begins, and its caller."""
        parent = self._places.get(completion.parent_id or "")
        if parent is not None:
            self._open.pop(parent, None)
            return max(self.times[parent].done_s, self._done_s(below=parent)), self._callers[parent]
        caller = self._caller(walk)
        if caller is not None:
            return self.times[caller].end_s, caller
        before = [place for place, one in enumerate(self._completions) if one.session_id == completion.session_id]
        owner = self._callers[before[-1]] if before else None
        return self._done_s(below=owner), owner

    def _caller(self, walk: Sequence[int]) -> int | None:
        """The latest completion with an open tool call that handed a text over to this fresh context; None if it is none."""
        if any(node in self._told and self._messages[node].message.role != "system" for node in walk):
            return None
        said = [self._messages[node].message.content.strip() for node in walk if self._messages[node].message.role == "user"]
        for place, texts in reversed(self._open.items()):
            if any(_hands_over(text, content) for text in texts for content in said):
                return place
        return None

    def _done_s(self, *, below: int | None) -> float:
        """When all is done that a completion's tool calls began, directly or through others; with None all there is."""
        return max((time.done_s for place, time in enumerate(self.times) if below is None or self._is_below(place, below)), default=0.0)

    def _is_below(self, place: int, caller: int) -> bool:
        above = self._callers[place]
        while above is not None and above != caller:
            above = self._callers[above]
        return above is not None


def _handed_over(reply: MessageNode) -> tuple[str, ...]:
    """The texts in the arguments of a reply's tool calls."""
    found: list[str] = []
    for call in reply.message.tool_calls:
        try:
            found += _texts(json.loads(call.arguments))
        except (ValueError, RecursionError):
            found.append(call.arguments.strip())
    return tuple(found)


def _hands_over(text: str, content: str) -> bool:
    return text == content or (len(text) >= _FEWEST_REPEATED_CHARACTERS and text in content)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value.strip()
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
