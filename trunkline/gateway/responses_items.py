"""OpenAI's Responses: the items of a request as the messages of a conversation. Owns no request key and no answer.

    reasoning, message, calls    that follow one another ──► one assistant message: the turn that was sampled and cut into items
    outputs of calls             ──► tool messages
    additional_tools, and what a search for tools found     ──► offered as if they were among the request's tools
    message of another role      ──► that message; a developer is a system
    anything else                ──► left out, and said to be

Items of one answer are one turn wherever they stand, if their ids (or those of their calls) say so; else a turn ends where
the order reasoning, message, calls starts anew.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from trunkline.errors import MalformedRequest
from trunkline.gateway.custom_calls import plain_id
from trunkline.gateway.json_in import read_at
from trunkline.gateway.responses_calls import ItemId, WireCallItem, is_call, item_id, read_call
from trunkline.gateway.wire import Past
from trunkline.types import Message, ToolCall

_CALL_NAME = re.compile(r"(call_\d+)_\d+\Z")
"""Ids of calls that the recorder names: the reply, and the place in it."""


class WireHead(Struct):
    """What an item is."""

    type: str | None = None
    role: str | None = None
    id: str | None = None


class WirePart(Struct):
    """One part of a message, of an output or of reasoning."""

    type: str = "text"
    text: str | None = None
    refusal: str | None = None


class WireMessageItem(Struct):
    """A message."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Raw] | None = None
    id: str | None = None


class WireReasoningItem(Struct):
    """Reasoning, in whatever form the client kept it."""

    id: str | None = None
    content: list[WirePart] | None = None
    summary: list[WirePart] | None = None
    encrypted_content: str | None = None


class WireOutputItem(Struct):
    """The output of a call."""

    call_id: str | None = None
    id: str | None = None
    output: Raw = Raw(b"null")
    tools: Raw = Raw(b"null")
    status: str | None = None


class WireToolsItem(Struct):
    """Tools that are offered later than the others."""

    tools: Raw = Raw(b"null")


class WireReference(Struct):
    """An item of an earlier answer, by its id."""

    id: str


@dataclass
class _Turn:
    """An assistant message in the making."""

    completion_id: str | None
    """The answer that its items are of, where their ids say so."""
    reasoning: str = ""
    content: str | None = None
    """None before the message's item."""
    calls: list[ToolCall] = field(default_factory=list)
    is_open: bool = True
    """Nothing stands behind it yet."""

    def message(self) -> Message:
        return Message("assistant", self.content or "", tuple(self.calls), reasoning=self.reasoning)


@dataclass(frozen=True)
class Conversation:
    """What the items of a request say."""

    messages: tuple[Message, ...]
    """In order."""
    has_reasoning: bool = False
    """One of the items is reasoning."""
    not_honoured: tuple[str, ...] = ()
    """What is left out, or stands in for something else."""
    more_tools: tuple[bytes, ...] = ()
    """Lists of tools, as they were sent."""


def read_items(items: Sequence[Raw], past: Past) -> Conversation:
    """The messages of `input`. Raises MalformedRequest naming the item that is wrong."""
    reader = _Reader(past)
    for place, raw in enumerate(items):
        reader.read(raw, f"input[{place}]")
    not_honoured = tuple(dict.fromkeys(reader.not_honoured))
    return Conversation(tuple(reader.finished()), reader.has_reasoning, not_honoured, tuple(reader.more_tools))


class _Reader:
    """Reads items one after another."""

    def __init__(self, past: Past) -> None:
        self.has_reasoning = False
        self.not_honoured: list[str] = []
        self.more_tools: list[bytes] = []
        self._past = past
        self._messages: list[Message | _Turn] = []
        self._turn: _Turn | None = None  # the latest
        self._call_ids: dict[str, str] = {}  # by id of the call's item

    def finished(self) -> Iterator[Message]:
        """The messages of all items that were read."""
        return (one.message() if isinstance(one, _Turn) else one for one in self._messages)

    def read(self, raw: Raw, where: str) -> None:
        """One item. Raises MalformedRequest."""
        head = read_at(raw, WireHead, where)
        kind = head.type or ("message" if head.role else "item_reference")
        if kind == "message":
            self._read_message(read_at(raw, WireMessageItem, where), where)
        elif kind == "reasoning":
            self._read_reasoning(read_at(raw, WireReasoningItem, where))
        elif is_call(kind):
            item = read_at(raw, WireCallItem, where)
            call = read_call(item, kind, where)
            if item.id:
                self._call_ids[item.id] = call.call_id
            self._add_call(call, item_id(item.id))
        elif kind == "additional_tools":
            self.more_tools.append(bytes(read_at(raw, WireToolsItem, where).tools))
        elif kind == "tool_search_output" or (kind.endswith("_call_output") and is_call(kind.removesuffix("_output"))):
            self._read_output(read_at(raw, WireOutputItem, where), kind, where)
        elif kind == "item_reference":
            self._read_reference(read_at(raw, WireReference, where), where)
        else:
            self.not_honoured.append(f"an input item of type {kind!r}: it is left out"[:200])

    def _read_message(self, item: WireMessageItem, where: str) -> None:
        text = self._text(item.content, f"{where}.content")
        if item.role == "assistant":
            self._add_content(text, item_id(item.id))
        else:
            self._add(Message("user" if item.role == "user" else "system", text))

    def _read_reasoning(self, item: WireReasoningItem) -> None:
        self.has_reasoning = True
        known = item_id(item.id)
        text = _reasoning(item)
        if text is None and known is not None:
            earlier = self._past(known.completion_id)
            text = earlier[-1].reasoning if earlier else None
        if text is None:
            text = "\n\n".join(part.text or "" for part in item.summary or ())
            self.not_honoured.append("a reasoning item without its text: the model reads its summary")
        if text:  # else nothing is left of it
            self._add_reasoning(text, known)

    def _read_output(self, item: WireOutputItem, kind: str, where: str) -> None:
        call_id = item.call_id
        if call_id is None and kind == "local_shell_call_output" and item.id:  # its id is the call's, or that of the call's item
            call_id = self._call_ids.get(item.id, item.id)
        if not call_id:
            raise MalformedRequest(f"{where}: a {kind} needs the call_id of the call that it answers")
        call_id = plain_id(call_id)
        if kind == "shell_call_output":
            text = msgspec.json.encode(read_at(item.output, list[dict[str, Any]], f"{where}.output")).decode()
        elif kind == "tool_search_output":
            text = msgspec.json.encode(read_at(item.tools, list[dict[str, Any]], f"{where}.tools")).decode()
            self.more_tools.append(bytes(item.tools))
        else:
            text = self._text(read_at(item.output, str | list[Raw] | None, f"{where}.output"), f"{where}.output")
        if kind == "apply_patch_call_output":  # whether it was applied is no part of the text
            text = "\n".join(filter(None, (item.status, text)))
        self._add(Message("tool", text, tool_call_id=call_id))

    def _read_reference(self, item: WireReference, where: str) -> None:
        known = item_id(item.id)
        earlier = self._past(known.completion_id) if known else None
        if known is None or not earlier:
            raise MalformedRequest(f"{where}.id: no item {item.id!r} in this session; send the item itself")
        reply = earlier[-1]
        if known.place is not None and known.place < len(reply.tool_calls):
            call = reply.tool_calls[known.place]
            self._call_ids[item.id] = call.call_id
            self._add_call(call, known)
        elif known.place is None and item.id.startswith("rs_"):
            self.has_reasoning = True
            self._add_reasoning(reply.reasoning, known)
        else:
            self._add_content(reply.content, known)

    def _text(self, content: str | list[Raw] | None, where: str) -> str:
        if not isinstance(content, list):
            return content or ""
        texts = []
        for place, raw in enumerate(content):
            part = read_at(raw, WirePart, f"{where}[{place}]")
            text = part.text if part.text is not None else part.refusal
            if text is None:
                self.not_honoured.append(f"a content part of type {part.type!r}: the model reads '[{part.type}]' in its place"[:200])
                text = f"[{part.type}]"[:100]
            texts.append(text)
        return "".join(texts)

    # --- turns ----------------------------------------------------------------------------------------------------

    def _add(self, message: Message) -> None:
        self._messages.append(message)
        if self._turn is not None:
            self._turn.is_open = False

    def _add_reasoning(self, text: str, known: ItemId | None) -> None:
        turn = self._joined(known, is_free=lambda turn: not turn.reasoning, is_next=lambda turn: turn.content is None and not turn.calls)
        turn.reasoning = f"{turn.reasoning}\n\n{text}" if turn.reasoning else text

    def _add_content(self, text: str, known: ItemId | None) -> None:
        turn = self._joined(known, is_free=lambda turn: turn.content is None, is_next=lambda turn: turn.content is None and not turn.calls)
        turn.content = text

    def _add_call(self, call: ToolCall, known: ItemId | None) -> None:
        def is_new(turn: _Turn) -> bool:
            return all(call.call_id != other.call_id for other in turn.calls)

        turn = self._turn
        if turn is None or known is not None or not (is_new(turn) and _is_of_same_reply(call, turn.calls)):
            turn = self._joined(known, is_free=is_new, is_next=is_new)
        turn.calls.append(call)

    def _joined(self, known: ItemId | None, *, is_free: Callable[[_Turn], bool], is_next: Callable[[_Turn], bool]) -> _Turn:
        """The latest turn, if an item belongs to it: it is of the same answer and `is_free` there, or nobody knows and it `is_next`.
        Else a new one."""
        completion_id = known.completion_id if known else None
        turn = self._turn
        if turn is not None:
            is_known = completion_id is not None and turn.completion_id is not None
            if completion_id == turn.completion_id and is_free(turn) if is_known else turn.is_open and is_next(turn):
                turn.completion_id = turn.completion_id or completion_id
                return turn
        turn = self._turn = _Turn(completion_id)
        self._messages.append(turn)
        return turn


def _is_of_same_reply(call: ToolCall, calls: Sequence[ToolCall]) -> bool:
    """Clients without item ids may put an output behind each call of a turn."""
    name = _CALL_NAME.match(call.call_id)
    last = _CALL_NAME.match(calls[-1].call_id) if calls else None
    return name is not None and last is not None and name[1] == last[1]


def _reasoning(item: WireReasoningItem) -> str | None:
    """The text itself, where the item has it."""
    if item.content:
        return "".join(part.text or "" for part in item.content)
    if item.encrypted_content:
        try:
            return base64.b64decode(item.encrypted_content, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return None  # somebody else's
    return None
