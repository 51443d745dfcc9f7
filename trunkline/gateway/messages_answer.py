"""Anthropic's Messages: writes answers, as one object or as events, and errors. Owns no request and no HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw, Struct

from trunkline.gateway.messages_blocks import UNREADABLE_KEY
from trunkline.gateway.sse import frame, pieces
from trunkline.gateway.wire import Answer, Committed, Failed

UNSUPPORTED_THREAD = "thread_unsupported_request"
"""The API's code for a conversation that the server will not hold; official clients then send all of it, now and later."""

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


@dataclass(frozen=True)
class MessageForm:
    """What an answer says beside the words."""

    model: str = ""
    """The name that the client asked for, and is answered; '' for the gateway's own. Claude Code sends no thinking back
    that came from another model than it asked."""
    shows_thinking: bool = True
    """Thinking is part of the answer."""


class ThinkingBlock(Struct):
    """What the model thought before it spoke."""

    thinking: str
    signature: str
    type: str = "thinking"


class TextBlock(Struct):
    """What it said."""

    text: str
    type: str = "text"


class ToolUseBlock(Struct):
    """A call."""

    id: str
    name: str
    input: Raw
    type: str = "tool_use"


Block = ThinkingBlock | TextBlock | ToolUseBlock


class WireUsage(Struct):
    """Token counts; nothing is cached on the client's behalf."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0


class WireMessage(Struct):
    """A message object."""

    id: str
    model: str
    content: list[Block]
    usage: WireUsage
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: None = None
    type: str = "message"
    role: str = "assistant"


_encoder = msgspec.json.Encoder()


def encode_message(answer: Answer, form: MessageForm) -> bytes:
    """The answer as one JSON object."""
    return _encoder.encode(_message(answer, form))


def message_events(answer: Answer, form: MessageForm) -> Iterator[bytes]:
    """The answer as framed events: message_start; a start, deltas and a stop of each block; message_delta; message_stop.

    The official client puts them together to exactly the JSON answer.
    """
    whole = _message(answer, form)
    begun = WireMessage(whole.id, whole.model, [], WireUsage(whole.usage.input_tokens, 0))
    yield _event("message_start", message=begun)
    for index, block in enumerate(whole.content):
        yield _event("content_block_start", index=index, content_block=_empty(block))
        for delta in _deltas(block):
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    ended = {"stop_reason": whole.stop_reason, "stop_sequence": whole.stop_sequence, "stop_details": None}
    yield _event("message_delta", delta=ended, usage=whole.usage)
    yield _event("message_stop")


def encode_token_count(num_tokens: int) -> bytes:
    """What POST /v1/messages/count_tokens answers."""
    return _encoder.encode({"input_tokens": num_tokens})


def encode_error(failure: Failed) -> bytes:
    """Anthropic's error object; its type follows from the status."""
    kind = _ERROR_TYPES.get(failure.status, "invalid_request_error" if failure.status < 500 else "api_error")
    error: dict[str, Any] = {"type": kind, "message": failure.message}
    if failure.code == UNSUPPORTED_THREAD:
        error["details"] = {"error_code": UNSUPPORTED_THREAD, "unsupported": ["thread"]}
    return _encoder.encode({"type": "error", "error": error, "request_id": None})


def error_event(failure: Failed) -> bytes:
    """The same, framed."""
    return frame(encode_error(failure), event="error")


def _message(answer: Answer, form: MessageForm) -> WireMessage:
    (sample,) = answer.samples  # the API has no n
    usage = WireUsage(answer.num_prompt, answer.num_sampled)
    reason = _stop_reason(sample)
    return WireMessage(
        f"msg_{sample.completion.completion_id}",
        form.model or answer.model,
        list(_blocks(sample, form.shows_thinking)),
        usage,
        reason,
        sample.stop_string if reason == "stop_sequence" else None,
    )


def _blocks(sample: Committed, shows_thinking: bool) -> Sequence[Block]:
    """Clients read `content[0]`, so an empty answer has an empty text. Its completion's id signs the thinking."""
    message = sample.message
    blocks: list[Block] = []
    if message.reasoning and shows_thinking:
        blocks.append(ThinkingBlock(message.reasoning, sample.completion.completion_id))
    if message.content:
        blocks.append(TextBlock(message.content))
    blocks += [ToolUseBlock(call.call_id, call.name, Raw(_input(call.arguments))) for call in message.tool_calls]
    return blocks or [TextBlock("")]


def _stop_reason(sample: Committed) -> str:
    if sample.message.tool_calls:
        return "tool_use"
    if sample.stop_string is not None:
        return "stop_sequence"
    return "max_tokens" if sample.completion.generation.finish_reason == "length" else "end_turn"


def _input(arguments: str) -> bytes:
    """Arguments as they were sampled, if they are a JSON object; the API knows no others, so those are put in one as text."""
    try:
        if isinstance(msgspec.json.decode(arguments), dict):
            return arguments.encode()
    except (msgspec.DecodeError, RecursionError):
        pass
    return _encoder.encode({UNREADABLE_KEY: arguments})


def _empty(block: Block) -> Block:
    """A block before its first delta."""
    match block:
        case ThinkingBlock():
            return ThinkingBlock("", "")
        case TextBlock():
            return TextBlock("")
        case ToolUseBlock():
            return ToolUseBlock(block.id, block.name, Raw(b"{}"))


def _deltas(block: Block) -> Iterator[dict[str, str]]:
    match block:
        case ThinkingBlock():
            for piece in pieces(block.thinking):
                yield {"type": "thinking_delta", "thinking": piece}
            yield {"type": "signature_delta", "signature": block.signature}
        case TextBlock():
            for piece in pieces(block.text):
                yield {"type": "text_delta", "text": piece}
        case ToolUseBlock():
            for piece in pieces(bytes(block.input).decode()):
                yield {"type": "input_json_delta", "partial_json": piece}


def _event(kind: str, **rest: Any) -> bytes:
    return frame(_encoder.encode({"type": kind, **rest}), event=kind)
