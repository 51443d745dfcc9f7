"""Anthropic's content blocks as messages of ours. Owns what each kind of block says to the model; no request key and no tool offer.

A turn's blocks become one message, but for a user's tool results, which are messages of their own before the user's words:

user       tool_result, tool_result, text ──► tool, tool, user
assistant  thinking, text, tool_use ──► assistant(reasoning, content, tool_calls)

What the model cannot read (images, PDFs) stands as its kind in brackets, and is reported as not honoured. `cache_control` is
never looked at, so that a client that moves its marks from turn to turn sends equal messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from trunkline.errors import MalformedRequest
from trunkline.gateway.json_in import read_at
from trunkline.types import Message, ToolCall

UNREADABLE_KEY = "unreadable_arguments"
"""Key under which arguments that are no JSON object are answered, since `input` must be one; undone when they come back."""

_ERROR_MARK = "[error] "
_BILLING_HEADER = "x-anthropic-billing-header:"
_SILENT = frozenset(("redacted_thinking", "tool_addition", "tool_removal", "mcp_tool_listing", "fallback"))
_SAYING_KEYS = (
    *("title", "url", "source", "context", "data", "text", "stdout", "stderr", "content"),
    *("tool_name", "tool_references", "error_code", "error_message"),
)
"""Keys of blocks that hold words for the model, in the order in which they are told."""

Content = str | list[Raw] | None


class WireTurn(Struct):
    """One entry of `messages`."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Content = None
    clear_at: str | None = None
    output_config: dict[str, Any] | None = None


class _Kind(Struct):
    type: str


class _Text(Struct):
    text: str


class _Thinking(Struct):
    thinking: str


class _ToolUse(Struct):
    id: str
    name: str
    input: Any = msgspec.field(default_factory=dict)


class _ToolResult(Struct):
    tool_use_id: str
    content: str | list[Any] | dict[str, Any] | None = None
    is_error: bool | None = None


def system_text(system: Content, missing: list[str]) -> str:
    """The system prompt, without the first line in which Claude Code bills its requests: it differs from call to call."""
    texts = [system] if isinstance(system, str) else _told_blocks(system or (), "system", missing)
    return "\n".join(text for text in map(_without_billing, texts) if text)


def decode_turns(turns: Sequence[WireTurn], missing: list[str]) -> list[Message]:
    """All turns; `missing` gains the kinds of blocks that the model cannot read.

    Assistant turns in a row are one, as the API has it, and as one answer may come back in parts. User turns stay apart.
    Raises MalformedRequest naming the block.
    """
    last_user = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=-1)
    messages: list[Message] = []
    for place, turn in enumerate(turns):
        if turn.clear_at == "next_user_message" and place < last_user:
            continue  # the client keeps sending it, and the model is to see it no longer
        for message in _turn(turn, f"messages[{place}]", missing):
            if message.role == "assistant" and messages and messages[-1].role == "assistant":
                message = _joined(messages.pop(), message)
            messages.append(message)
    return messages


def _turn(turn: WireTurn, where: str, missing: list[str]) -> Iterator[Message]:
    content, where = turn.content or "", f"{where}.content"
    if turn.role in ("system", "developer"):
        missing.extend(f"output_config.{key[:64]} of a turn" for key in turn.output_config or ())
        text = content if isinstance(content, str) else "\n".join(filter(None, _told_blocks(content, where, missing)))
        if text:
            yield Message("system", text)
    elif isinstance(content, str):
        yield Message("user" if turn.role == "user" else "assistant", content)
    elif turn.role == "user":
        yield from _user(content, where, missing)
    else:
        yield _assistant(content, where, missing)


def _user(blocks: Sequence[Raw], where: str, missing: list[str]) -> Iterator[Message]:
    texts = []
    for place, block in enumerate(blocks):
        here = f"{where}[{place}]"
        kind = read_at(block, _Kind, here).type
        if kind == "tool_result":
            yield _result(read_at(block, _ToolResult, here), here, missing)
        elif kind in ("tool_use", "thinking"):
            raise MalformedRequest(f"{here}: a {kind} block belongs in an assistant turn; this one is of role 'user'")
        else:
            texts.append(_told(read_at(block, Any, here), here, missing))
    if texts:
        yield Message("user", "\n".join(texts))


def _assistant(blocks: Sequence[Raw], where: str, missing: list[str]) -> Message:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for place, block in enumerate(blocks):
        here = f"{where}[{place}]"
        kind = read_at(block, _Kind, here).type
        if kind == "text":
            texts.append(read_at(block, _Text, here).text)
        elif kind == "thinking":
            thoughts.append(read_at(block, _Thinking, here).thinking)
        elif kind == "tool_use":
            use = read_at(block, _ToolUse, here)
            calls.append(ToolCall(use.id, use.name, _arguments(use.input)))
        elif kind in ("server_tool_use", "mcp_tool_use"):
            use = read_at(block, _ToolUse, here)
            texts.append(f"\n{use.name}({_arguments(use.input)})\n")
        elif kind == "tool_result":
            raise MalformedRequest(f"{here}: a tool_result block belongs in a user turn; this one is of role 'assistant'")
        else:
            text = _told(read_at(block, Any, here), here, missing)
            texts.append(f"\n{text}\n" if text else "")
    return Message("assistant", "".join(texts), tuple(calls), reasoning="\n".join(filter(None, thoughts)))


def _result(wire: _ToolResult, where: str, missing: list[str]) -> Message:
    """`is_error` has no place in a chat format, so the text says it."""
    text = _told(wire.content, f"{where}.content", missing)
    return Message("tool", _ERROR_MARK + text if wire.is_error else text, tool_call_id=wire.tool_use_id)


def _joined(first: Message, second: Message) -> Message:
    reasoning = "\n".join(filter(None, (first.reasoning, second.reasoning)))
    return replace(first, content=first.content + second.content, tool_calls=first.tool_calls + second.tool_calls, reasoning=reasoning)


def _arguments(value: Any) -> str:
    """An `input` as compact JSON."""
    if isinstance(value, dict) and list(value) == [UNREADABLE_KEY] and isinstance(value[UNREADABLE_KEY], str):
        return value[UNREADABLE_KEY]
    return msgspec.json.encode(value).decode()


def _told_blocks(blocks: Sequence[Raw], where: str, missing: list[str]) -> list[str]:
    return [_told(read_at(block, Any, f"{where}[{place}]"), f"{where}[{place}]", missing) for place, block in enumerate(blocks)]


def _told(value: Any, where: str, missing: list[str]) -> str:
    """The words of a block, of whatever kind, and of what it holds."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(filter(None, (_told(one, f"{where}[{place}]", missing) for place, one in enumerate(value))))
    if not isinstance(value, dict):
        return ""
    kind = str(value.get("type", ""))
    if kind == "text" and "data" not in value:  # with data it is a document's source
        if not isinstance(value.get("text"), str):
            raise MalformedRequest(f"{where}.text: a text block needs a string, got {value.get('text')!r:.80}")
        return str(value["text"])
    if kind in _SILENT:
        missing.append(f"a block of type {kind!r}: it is left out")
        return ""
    source = value.get("source")
    is_opaque = isinstance(source, dict) and source.get("type") not in ("text", "content")
    if is_opaque or not any(key in value for key in _SAYING_KEYS):
        missing.append(f"a block of type {kind[:64]!r}: the model reads '[{kind[:64]}]' in its place")
        return f"[{kind[:64]}]"
    return "\n".join(filter(None, (_told(value[key], f"{where}.{key}", missing) for key in _SAYING_KEYS if key in value)))


def _without_billing(text: str) -> str:
    return text.partition("\n")[2] if text.startswith(_BILLING_HEADER) else text
