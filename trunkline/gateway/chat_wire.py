"""OpenAI's Chat Completions: decodes and validates requests. Owns no answer (chat_answer.py), no HTTP and no session.

What a training session does with what a client asks:

    messages, tools, n, max_tokens, stop, logprobs, stream   honoured; the recipe's own token limit holds as well
    temperature, top_p, seed                                 recorded and not used: a training session samples the policy itself
    tool_choice 'required' or a name, response_format, penalties, tools of other types, unknown keys, ...
                                                             recorded as not honoured, and listed in the answer's header
                                                             x-trunkline-not-honoured; `trunkline serve` refuses them here
    keys that change no token, such as user or store         accepted
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from trunkline.errors import MalformedRequest
from trunkline.gateway import chat_answer
from trunkline.gateway.custom_calls import CUSTOM_PARAMETERS, plain_id, read_custom_call
from trunkline.gateway.json_in import read_body
from trunkline.gateway.sampling import AskedSampling
from trunkline.gateway.sse import frame
from trunkline.gateway.wire import MAX_SAMPLES, Answer, Ask, Failed, Past, ToolOffer, each_once
from trunkline.types import Message, Role, ToolCall, ToolSpec

_HARMLESS = frozenset(
    (
        "user",
        "metadata",
        "store",
        "service_tier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "safety_identifier",
    )
)
"""Keys of the API that change no token of an answer."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True,),
}
"""Keys that are honoured only in that these values, or null, mean the same as leaving them out."""


class WirePart(Struct):
    """One part of a message's content."""

    type: str
    text: str = ""
    refusal: str = ""


class WireFunction(Struct):
    """The function of a call."""

    name: str
    arguments: str = "{}"


class WireCustom(Struct):
    """The custom tool of a call."""

    name: str
    input: str = ""


class WireCall(Struct):
    """A call in an assistant message."""

    id: str = ""
    function: WireFunction | None = None
    custom: WireCustom | None = None
    type: str = "function"


class WireMessage(Struct):
    """A message of a request."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[WirePart] | None = None
    tool_calls: list[WireCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    function_call: WireFunction | None = None


class WireToolFunction(Struct):
    """The function, or the custom tool, of an offered tool."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class WireTool(Struct):
    """A tool offered to the model."""

    type: str
    function: WireToolFunction | None = None
    custom: WireToolFunction | None = None


class WireStreamOptions(Struct):
    """How a stream is wanted; its other keys change nothing."""

    include_usage: bool | None = None


class WireBody(Struct, forbid_unknown_fields=True):
    """The keys that this gateway understands."""

    messages: list[WireMessage]
    model: str = ""
    tools: Raw = Raw(b"null")
    tool_choice: str | dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    logprobs: bool | None = None
    stream: bool | None = None
    stream_options: WireStreamOptions | None = None


@dataclass(frozen=True)
class OfferedTools:
    """What a request's `tools` come to."""

    offer: ToolOffer
    """What the model may call."""
    custom: frozenset[str]
    """Names of those that take free text."""
    not_honoured: tuple[str, ...]
    """Of those that cannot be offered."""


@dataclass(frozen=True)
class ChatRequest:
    """A validated request: what is asked, and in which form the answer is wanted. See WireRequest (wire.py)."""

    ask: Ask
    """What is asked."""
    is_streamed: bool
    """As server-sent events instead of one JSON object."""
    form: chat_answer.ChatForm
    """What the answer says beside the message."""

    def body(self, answer: Answer) -> bytes:
        """A chat.completion object."""
        return chat_answer.encode(chat_answer.chat_completion(answer, self.form))

    def events(self, answer: Answer) -> Iterator[bytes]:
        """chat.completion.chunk objects and [DONE]."""
        return chat_answer.chat_events(answer, self.form)


class ChatWire:
    """The API. See WireAPI (wire.py)."""

    name = "chat"

    def decode(self, body: bytes, past: Past) -> ChatRequest:
        """Validates a request. Raises MalformedRequest naming the key that is wrong."""
        return decode_chat(body)

    def refusal(self, failure: Failed) -> bytes:
        """OpenAI's error object."""
        return chat_answer.encode_error(failure)

    def failure_event(self, failure: Failed) -> bytes:
        """The same as an event; no [DONE] follows."""
        return frame(chat_answer.encode_error(failure))


_decoder = msgspec.json.Decoder(WireBody)
_encoder = msgspec.json.Encoder()


def decode_chat(body: bytes) -> ChatRequest:
    """Validates a request. Raises MalformedRequest naming the key that is wrong."""
    not_honoured: list[str] = []
    try:
        wire = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        wire = read_body(body, WireBody, harmless=_HARMLESS, neutral=_NEUTRAL, not_honoured=not_honoured)
    if wire.n is not None and not 1 <= wire.n <= MAX_SAMPLES:
        raise MalformedRequest(f"n must be 1..{MAX_SAMPLES}, got {wire.n}")
    if not wire.messages:
        raise MalformedRequest("messages is empty; send at least one")
    if wire.tool_choice not in (None, "auto", "none"):
        not_honoured.append(f"tool_choice {_encoder.encode(wire.tool_choice).decode()}: calls cannot be forced")
    tools = offered_tools(bytes(wire.tools))
    messages = tuple([_message(place, message, not_honoured) for place, message in enumerate(wire.messages)])
    ask = Ask(
        messages=messages,
        tools=tools.offer,
        may_call=wire.tool_choice != "none",
        asked=_asked(wire),
        num_samples=wire.n or 1,
        not_honoured=each_once((*not_honoured, *tools.not_honoured)),
    )
    with_usage = wire.stream_options is not None and bool(wire.stream_options.include_usage)
    return ChatRequest(ask, bool(wire.stream), chat_answer.ChatForm(with_usage, bool(wire.logprobs), tools.custom))


def _message(place: int, wire: WireMessage, not_honoured: list[str]) -> Message:
    if wire.role == "tool" and wire.tool_call_id is None:
        raise MalformedRequest(f"messages[{place}]: a tool message needs the tool_call_id that it answers")
    if wire.tool_calls and wire.role != "assistant":
        raise MalformedRequest(f"messages[{place}]: only an assistant message has tool_calls, this one is of role {wire.role!r}")
    content = _text(wire.content, not_honoured) or wire.refusal or ""
    match wire.role:
        case "assistant":
            calls = [_call(place, call) for call in wire.tool_calls or ()]
            if wire.function_call is not None:  # the API's older form of one call
                calls.append(ToolCall("", wire.function_call.name, wire.function_call.arguments))
            return Message("assistant", content, tuple(calls), reasoning=wire.reasoning_content or wire.reasoning or "")
        case "tool" | "function":
            return Message("tool", content, tool_call_id=plain_id(wire.tool_call_id or wire.name or ""))
        case _:
            role: Role = "system" if wire.role == "developer" else wire.role
            return Message(role, content)


def _text(content: str | list[WirePart] | None, not_honoured: list[str]) -> str:
    if not isinstance(content, list):
        return content or ""
    texts = []
    for part in content:
        if part.type in ("text", "refusal"):
            texts.append(part.text or part.refusal)
        else:
            not_honoured.append(f"a content part of type {part.type!r}: the model reads '[{part.type}]' in its place"[:200])
            texts.append(f"[{part.type}]"[:100])
    return "".join(texts)


def _call(place: int, wire: WireCall) -> ToolCall:
    if wire.function is not None:
        return ToolCall(wire.id, wire.function.name, wire.function.arguments)
    if wire.custom is not None:
        return read_custom_call(wire.id, wire.custom.name, wire.custom.input)
    raise MalformedRequest(f"messages[{place}]: a call of type {wire.type!r} needs 'function' or 'custom'")


@functools.lru_cache(maxsize=256)
def offered_tools(raw: bytes) -> OfferedTools:
    """Agents send the same tools with every call, so their bytes are decoded once."""
    try:
        wires = msgspec.json.decode(raw, type=list[WireTool] | None)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedRequest(f"tools: {error}") from error
    specs, custom, not_honoured = [], set(), []
    for one in wires or ():
        if one.type == "function" and one.function is not None:
            specs.append(ToolSpec(one.function.name, one.function.description or "", one.function.parameters or {}))
        elif one.type == "custom" and one.custom is not None:
            specs.append(ToolSpec(one.custom.name, one.custom.description or "", CUSTOM_PARAMETERS))
            custom.add(one.custom.name)
        elif one.type in ("function", "custom"):
            raise MalformedRequest(f"tools: a tool of type {one.type!r} needs the key {one.type!r}")
        else:
            not_honoured.append(f"a tool of type {one.type!r}: it is not offered"[:200])
    return OfferedTools(tool_offer(specs), frozenset(custom), tuple(not_honoured))


def tool_offer(specs: list[ToolSpec]) -> ToolOffer:
    """Raises MalformedRequest if two tools have one name."""
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise MalformedRequest(f"tools: names must differ, got {names}")
    key = _encoder.encode([(spec.name, spec.description, spec.parameters) for spec in specs]) if specs else b""
    return ToolOffer(tuple(specs), key)


def _asked(wire: WireBody) -> AskedSampling:
    limits = [limit for limit in (wire.max_tokens, wire.max_completion_tokens) if limit is not None]
    if limits and min(limits) < 1:
        raise MalformedRequest(f"max_tokens must be at least 1, got {min(limits)}")
    stop = (wire.stop,) if isinstance(wire.stop, str) else tuple(wire.stop or ())
    if "" in stop:
        raise MalformedRequest("stop holds an empty string, which would stop everything; leave it out")
    return AskedSampling(min(limits, default=None), wire.temperature, wire.top_p, wire.seed, stop)
