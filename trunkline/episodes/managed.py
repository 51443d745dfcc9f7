"""A demonstrated conversation as its agent's context management would have shown it, branch by branch. Owns no method and no weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from trunkline.agents.openai_shape import wire_message
from trunkline.errors import ConfigError
from trunkline.gateway.base import Renderer
from trunkline.gateway.conversation import RenderedConversation, render_conversation
from trunkline.types import Message, ToolSpec

if TYPE_CHECKING:
    from trunkline.agents.context_management import ContextManagement


def managed_branches(
    renderer: Renderer, method: ContextManagement, messages: Sequence[Message], tools: Sequence[ToolSpec]
) -> list[RenderedConversation]:
    """The contexts that a live conversation has, one for all that extend each other; each turn is an action in exactly one of them.

    A turn that repeats what a tool said and its context has lost is no action at all: who imitates it learns to make things up.
    Raises ConfigError for a method that tells the model something: nobody demonstrates what it is to answer.
    """
    task, turns = _turns_of([wire_message(message) for message in messages])
    told = {id(wire): message for wire, message in zip([*task, *(one for turn in turns for one in turn)], messages, strict=True)}
    branches: list[RenderedConversation] = []
    context, not_new = task, list[bool]()  # of each reply in the branch: it is context alone
    for place, turn in enumerate(turns):
        branch = [told[id(wire)] for wire in [*context, turn[0]]]
        results = [wire["content"] for wire in itertools.chain(*turns[:place]) if wire["role"] == "tool"]
        not_new.append(_is_made_up(turn[0]["content"], results, in_sight=context))
        rendered = render_conversation(renderer, branch, tools)
        grown = [*context, *turn]
        if method.instruction(len(rendered.token_ids)) is not None:
            raise ConfigError("a summary is not demonstrated, so demonstrations cannot be shown with it; set cold_start.managed_share = 0")
        context = method.next_context(task, grown, len(rendered.token_ids), None)
        if place == len(turns) - 1 or context != grown:
            branches.append(RenderedConversation(rendered.token_ids, tuple(_only_new(rendered.is_action, not_new))))
            not_new = [True for wire in context if wire["role"] == "assistant"]
    return branches


def _turns_of(wires: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """The task's messages, and the turns, each an assistant's message with what follows it."""
    starts = [place for place, wire in enumerate(wires) if wire["role"] == "assistant"]
    return wires[: starts[0]], [wires[start:end] for start, end in zip(starts, [*starts[1:], len(wires)], strict=True)]


def _is_made_up(said: str, results: Sequence[str], *, in_sight: Sequence[dict[str, Any]]) -> bool:
    """True if it repeats a result that neither a text nor a call in sight has."""
    texts = [str(wire) for wire in in_sight]
    return any(result in said and not any(result in text for text in texts) for result in results)


def _only_new(is_action: Sequence[bool], not_new: Sequence[bool]) -> Iterator[bool]:
    """Without the replies that are context: those still in sight from an earlier branch, for one."""
    replies = iter(not_new)
    for action, run in itertools.groupby(is_action):
        wanted = action and not next(replies)
        yield from (wanted for _ in run)
