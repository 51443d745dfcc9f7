"""Conversations of an oracle that errs on purpose. Owns no tokens.

The oracle makes the needed lookups in order and copies what they returned. Each of its decisions errs
with probability `decision_noise`: a needless lookup of the entity at hand, or a wrong answer at once.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

from trunkline.tasks.lookup.questions import INDEPENDENT_KINDS, Instance
from trunkline.tasks.lookup.roads import note_of, turns_of, wrong_end
from trunkline.tasks.lookup.vocabulary import AND
from trunkline.tasks.lookup.world import Lookup, LookupTools, format_value
from trunkline.types import Message, Task, ToolCall

if TYPE_CHECKING:
    from trunkline.tasks.lookup.taskset import LookupTaskset

_NEEDLESS_LOOKUP_SHARE = 0.3
_RANDOM_EXPONENTS = (3.0, 9.0)


def demonstrate(taskset: LookupTaskset, task: Task, rng: random.Random, *, decision_noise: float) -> tuple[Message, ...]:
    """The prompt, then one lookup a turn with its true result, then the answer; always right at `decision_noise` 0.

    In the taskset's `parallel_share` of tasks with independent lookups, all of them are made in one turn.
    """
    instance = taskset.instance(task)
    conversation = _Conversation(task, taskset.open_steady_tools(task))
    if task.kind in INDEPENDENT_KINDS and taskset.config.parallel_share and rng.random() < taskset.config.parallel_share:
        conversation.look_up(*instance.needed)
        return conversation.end(instance.answer)
    for pending in (*turns_of(instance), None):
        while rng.random() < decision_noise:
            if rng.random() >= _NEEDLESS_LOOKUP_SHARE:
                return conversation.end(wrong_answer(task, instance, rng))
            conversation.look_up_needlessly(instance, pending, rng)
        if pending is not None:
            note = note_of(instance, pending) if instance.world.road and rng.random() < taskset.config.note_share else ""
            conversation.look_up(pending, note=note)
    return conversation.end(instance.answer)


def wrong_answer(task: Task, instance: Instance, rng: random.Random) -> str:
    """Of the right form: the other city, a random value, or two."""
    if task.kind == "comparison":
        return next(lookup.entity for lookup in instance.needed if lookup.entity != instance.answer)
    if task.kind == "road":
        return wrong_end(instance, rng)
    while True:
        given = AND.join(format_value(10 ** rng.uniform(*_RANDOM_EXPONENTS)) for _ in instance.answer.split(AND))
        if given != instance.answer:
            return given


class _Conversation:
    """Grows by whole turns; results come from the real tools."""

    def __init__(self, task: Task, tools: LookupTools) -> None:
        self._tools = tools
        self._messages = list(task.prompt)
        self._made: list[Lookup] = []

    def look_up(self, *lookups: Lookup, note: str = "") -> None:
        """All in one turn, after the words of `note`."""
        calls = tuple(
            ToolCall(f"call_{number}", lookup.tool, json.dumps({self._tools.arguments[lookup.tool]: lookup.entity}))
            for number, lookup in enumerate(lookups, start=len(self._made))
        )
        results = [Message("tool", self._tools.respond(call.name, call.arguments), tool_call_id=call.call_id) for call in calls]
        self._messages += [Message("assistant", note, tool_calls=calls), *results]
        self._made += lookups

    def look_up_needlessly(self, instance: Instance, pending: Lookup | None, rng: random.Random) -> None:
        """A random other tool on the entity at hand; not if the budget would then be short for what is needed."""
        num_to_come = len([lookup for lookup in turns_of(instance) if lookup not in self._made])
        if len(self._made) + num_to_come >= self._tools.call_budget:
            return
        entity = (pending or self._made[-1]).entity
        self.look_up(Lookup(rng.choice([tool for tool in self._tools.arguments if pending is None or tool != pending.tool]), entity))

    def end(self, answer: str) -> tuple[Message, ...]:
        return (*self._messages, Message("assistant", answer))
