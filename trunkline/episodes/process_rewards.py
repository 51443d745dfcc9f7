"""Faults that a record shows in single completions, with severity and evidence. Owns what counts as one; weights are the caller's.

format      a call that could not be read, or that its tool refused for its name or arguments
repetition  a completion that goes round in a loop, or says again what it has said (repetition.py)
language    prose in a script that the conversation is not written in (scripts.py)

Faults only: that reasoning is well structured, which MiniMax-M2 rewards as well, no detector here can see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trunkline.episodes.repetition import Repetition, repetition
from trunkline.episodes.scripts import foreign_prose
from trunkline.tasks.lookup.vocabulary import BAD_ARGUMENTS, UNKNOWN_TOOL
from trunkline.types import Completion, Message, MessageNode, Reward, walk_to

REFUSALS = (BAD_ARGUMENTS, UNKNOWN_TOOL)
"""How the text of a tool begins that refuses a call for its arguments or its name."""

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Fault:
    """One fault of one completion."""

    kind: str
    """format, repetition or language."""
    at: int
    """Index of the completion in its episode."""
    severity: float
    """In (0, 1]: the share of it that is at fault; 1 for a call that failed."""
    evidence: str
    """One line a person can check."""


def process_rewards(completions: Sequence[Completion], messages: Sequence[MessageNode], *, weight: float) -> tuple[Reward, ...]:
    """Minus `weight` times its severity for each fault, named 'process.KIND', at its completion."""
    return tuple(
        Reward(f"process.{fault.kind}", -weight * fault.severity, f"{fault.evidence}; severity {fault.severity:.2f} x {weight:g}", fault.at)
        for fault in faults(completions, messages)
    )


def faults(completions: Sequence[Completion], messages: Sequence[MessageNode]) -> Iterator[Fault]:
    """All of an episode, by completion; at most one of a kind in each."""
    for place, completion in enumerate(completions):
        if (said := _format_fault(completion, messages)) is not None:
            yield Fault("format", place, 1.0, said)
        if (found := repetition(completion.generation.token_ids)) is not None:
            yield Fault("repetition", place, found.share, _repetition_said(found))
        reply = messages[completion.reply_node].message
        foreign = foreign_prose(f"{reply.reasoning}\n{reply.content}", given=_given(completion, messages))
        if foreign is not None:
            yield Fault("language", place, foreign.share, f"{foreign.script} in a conversation without it: {_shown(foreign.excerpt)}")


def _format_fault(completion: Completion, messages: Sequence[MessageNode]) -> str | None:
    if completion.facts.format_error is not None:
        return f"calls that cannot be read: {completion.facts.format_error}"
    refused = [result.content for result in _results(completion.reply_node, messages) if result.content.startswith(REFUSALS)]
    return f"{len(refused)} calls refused: {_shown(refused[0])}" if refused else None


def _results(reply_node: int, messages: Sequence[MessageNode]) -> Iterator[Message]:
    """What tools answered to a reply: the tool messages that follow it, of the first conversation that went on from it."""
    behind = reply_node
    for index in range(reply_node + 1, len(messages)):
        if messages[index].parent == behind and messages[index].message.role == "tool":
            yield messages[index].message
            behind = index


def _given(completion: Completion, messages: Sequence[MessageNode]) -> str:
    """All that the model was given to read and did not write."""
    told = (messages[node].message for node in walk_to(completion.prompt_node, messages))
    return "\n".join(message.content for message in told if message.role != "assistant")


def _repetition_said(found: Repetition) -> str:
    if found.period:
        return f"{found.num_tokens // found.period} times the same {found.period} tokens in a row, from token {found.start}"
    return f"{found.num_tokens} of its tokens end a sequence that it had written before"


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")
