"""Anthropic's Messages: decodes and validates requests. Owns no answer (messages_answer.py), no HTTP and no session.

What a training session does with what a client asks:

    system, messages, tools, tool_choice 'none', max_tokens, stop_sequences, stream   honoured; the recipe's token limit holds as well
    temperature, top_p                                       recorded and not used: a training session samples the policy itself
    thinking                                                 shown wherever the model thinks; 'disabled' hides it
    top_k, tool_choice 'any' or a name, output_config, context_management, server tools, unknown keys, ...
                                                             recorded as not honoured, and listed in the answer's header
                                                             x-trunkline-not-honoured
    thread                                                   refused by the API's own code, upon which official clients send everything
    keys that change no token, such as cache_control, metadata or service_tier      accepted

Any model is accepted, and answered by the name it was asked by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from msgspec import Raw, Struct

from trunkline.errors import MalformedRequest
from trunkline.gateway import messages_answer
from trunkline.gateway.json_in import read_at
from trunkline.gateway.messages_answer import UNSUPPORTED_THREAD
from trunkline.gateway.messages_blocks import Content, WireTurn, decode_turns, system_text
from trunkline.gateway.messages_tools import decode_tools
from trunkline.gateway.sampling import AskedSampling
from trunkline.gateway.wire import Answer, Ask, Failed, Past, each_once
from trunkline.types import Message

_HARMLESS = frozenset(
    (
        *("cache_control", "metadata", "service_tier", "speed", "inference_geo", "betas", "diagnostics"),
        *("user_profile_id", "workspace_id", "billing_policy", "fallbacks", "fallback_credit_token"),
    )
)
"""Keys of the API that change no token of an answer."""

_UNKEPT = frozenset(("container", "mcp_servers", "compaction", "output_format"))
"""Keys of the API that would change an answer, and are not acted on unless empty."""


class WireToolChoice(Struct):
    """Whether tools may, or must, be called."""

    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class WireThinking(Struct):
    """How the model is to think."""

    type: str
    budget_tokens: int | None = None
    display: str | None = None


class WireBody(Struct):
    """The keys that this gateway understands."""

    messages: list[WireTurn]
    model: str | None = None
    system: Content = None
    tools: Raw = Raw(b"null")
    tool_choice: WireToolChoice | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    thinking: WireThinking | None = None
    output_config: dict[str, Any] | None = None
    context_management: dict[str, Any] | None = None
    thread: dict[str, Any] | None = None


@dataclass(frozen=True)
class MessagesRequest:
    """A validated request. See WireRequest (wire.py)."""

    ask: Ask
    """What is asked."""
    is_streamed: bool
    """As server-sent events."""
    form: messages_answer.MessageForm
    """What the answer says beside the words."""

    def body(self, answer: Answer) -> bytes:
        """A message object."""
        return messages_answer.encode_message(answer, self.form)

    def events(self, answer: Answer) -> Iterator[bytes]:
        """message_start to message_stop."""
        return messages_answer.message_events(answer, self.form)


class MessagesWire:
    """The API. See WireAPI (wire.py). A request to count tokens is decoded alike; it has no max_tokens."""

    name = "messages"

    def decode(self, body: bytes, past: Past) -> MessagesRequest:
        """Validates a request. Raises MalformedRequest naming the key that is wrong."""
        try:
            return _decode(body)
        except RecursionError as error:
            raise MalformedRequest("the body is nested too deeply; send flatter JSON") from error

    def refusal(self, failure: Failed) -> bytes:
        """Anthropic's error object."""
        return messages_answer.encode_error(failure)

    def failure_event(self, failure: Failed) -> bytes:
        """The same as an event; no message_stop follows."""
        return messages_answer.error_event(failure)


def _decode(body: bytes) -> MessagesRequest:
    wire, keys = read_at(body, WireBody, ""), read_at(body, dict[str, Raw], "")
    if not wire.messages:
        raise MalformedRequest("messages is empty; send at least one")
    if wire.thread is not None:
        raise MalformedRequest("thread: no conversation is held here; send all of it with every request", code=UNSUPPORTED_THREAD)
    missing = [*_unkept_keys(keys), *_unkept(wire)]
    messages = decode_turns(wire.messages, missing)
    system = system_text(wire.system, missing)
    if system:
        messages.insert(0, Message("system", system))
    if not messages:
        raise MalformedRequest("messages say nothing; send at least one with text")
    tools = decode_tools(bytes(wire.tools))
    is_hidden = wire.thinking is not None and wire.thinking.type == "disabled"
    ask = Ask(
        messages=tuple(messages),
        tools=tools.offer,
        may_call=wire.tool_choice is None or wire.tool_choice.type != "none",
        asked=_asked(wire),
        wire="messages",
        keeps_reasoning=not is_hidden,  # nobody sends back what was never shown
        not_honoured=each_once([*missing, *tools.not_honoured]),
    )
    return MessagesRequest(ask, bool(wire.stream), messages_answer.MessageForm(wire.model or "", not is_hidden))


def _asked(wire: WireBody) -> AskedSampling:
    if wire.max_tokens is not None and wire.max_tokens < 1:
        raise MalformedRequest(f"max_tokens must be at least 1, got {wire.max_tokens}")
    stop = tuple(wire.stop_sequences or ())
    if "" in stop:
        raise MalformedRequest(f"stop_sequences[{stop.index('')}] is empty, which would stop everything; leave it out")
    return AskedSampling(wire.max_tokens, wire.temperature, wire.top_p, None, stop)


def _unkept_keys(keys: dict[str, Raw]) -> Iterator[str]:
    """Keys that no field of WireBody stands for."""
    for key, value in keys.items():
        if key in WireBody.__struct_fields__ or key in _HARMLESS or bytes(value) in (b"null", b"[]", b"{}"):
            continue
        yield key if key in _UNKEPT else f"unknown key {key[:64]!r}"


def _unkept(wire: WireBody) -> Iterator[str]:
    """Values that would change an answer and are not acted on."""
    if wire.top_k is not None:
        yield f"top_k {wire.top_k}"
    choice = wire.tool_choice
    if choice is not None and choice.type not in ("auto", "none"):
        yield f"tool_choice {choice.type[:64]!r}{f' {choice.name[:64]!r}' if choice.name else ''}: calls cannot be forced"
    if choice is not None and choice.disable_parallel_tool_use:
        yield "tool_choice.disable_parallel_tool_use"
    if wire.thinking is not None:
        yield from _unkept_thinking(wire.thinking)
    for key, value in (wire.output_config or {}).items():
        if value is not None:
            yield f"output_config.{key[:64]}{f' {value[:64]!r}' if isinstance(value, str) else ''}"
    yield from _unkept_edits((wire.context_management or {}).get("edits"))


def _unkept_thinking(thinking: WireThinking) -> Iterator[str]:
    if thinking.type == "disabled":
        yield "thinking 'disabled': it is hidden, not prevented"
    elif thinking.type not in ("enabled", "adaptive"):
        yield f"thinking {thinking.type[:64]!r}"
    if thinking.budget_tokens is not None:
        yield f"thinking.budget_tokens {thinking.budget_tokens}"
    if thinking.display not in (None, "summarized"):
        yield f"thinking.display {thinking.display[:64]!r}"


def _unkept_edits(edits: Any) -> Iterator[str]:
    """Edits of the context that the server would do; keeping all thinking is what is done anyway."""
    for edit in edits if isinstance(edits, list) else ():
        kind = str(edit.get("type", "")) if isinstance(edit, dict) else ""
        if not (kind.startswith("clear_thinking") and edit.get("keep") == "all"):
            yield f"context_management {kind[:64]!r}"
