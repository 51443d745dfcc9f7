"""OpenAI's Chat Completions as bytes: decodes and validates requests, encodes answers. Owns no HTTP and no session.

Of the sampler's knobs only the token limit is honoured (as a minimum with the recipe's hold). temperature, top_p, seed and
stop are recorded and not used: a training session samples the policy itself. Keys that would change the result and that
this gateway does not implement are refused; keys that cannot change it are accepted.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from trunkline.errors import MalformedRequest
from trunkline.gateway.gateway import ChatAsk
from trunkline.gateway.recorder import Committed, ToolOffer
from trunkline.gateway.sampling import AskedSampling
from trunkline.types import Message, Role, ToolCall, ToolSpec

_HARMLESS = frozenset(
    (
        "user",
        "metadata",
        "store",
        "service_tier",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
    )
)
"""Keys of the API that change no token of an answer."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
"""Keys that are refused unless they hold one of these values, or null, which mean the same as leaving them out."""


class WirePart(Struct):
    """One part of a message's content."""

    type: str
    text: str = ""


class WireFunction(Struct):
    """The function of a call."""

    name: str
    arguments: str = "{}"


class WireCall(Struct):
    """A call in an assistant message."""

    id: str
    function: WireFunction
    type: Literal["function"] = "function"


class WireMessage(Struct):
    """A message of a request."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[WirePart] | None = None
    tool_calls: list[WireCall] | None = None
    tool_call_id: str | None = None
    function_call: None = None
    audio: None = None


class WireToolFunction(Struct):
    """The function of an offered tool."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class WireTool(Struct):
    """A tool offered to the model."""

    type: Literal["function"]
    function: WireToolFunction


class WireStreamOptions(Struct):
    """How a stream is wanted; its other keys change nothing."""

    include_usage: bool | None = None


class WireRequest(Struct, forbid_unknown_fields=True):
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
    stream: bool | None = None
    stream_options: WireStreamOptions | None = None


class WireReplyMessage(Struct, omit_defaults=True):
    """The assistant message of an answer."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    tool_calls: list[WireCall] | UnsetType = UNSET


class WireChoice(Struct):
    """The one choice of an answer."""

    message: WireReplyMessage
    finish_reason: str
    index: int = 0
    logprobs: None = None


class WireUsage(Struct):
    """Token counts of an answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class WireAnswer(Struct):
    """A chat.completion object."""

    id: str
    model: str
    created: int
    choices: list[WireChoice]
    usage: WireUsage
    object: str = "chat.completion"


@dataclass(frozen=True)
class ChatRequest:
    """A validated request: what is asked, and in which form the answer is wanted."""

    ask: ChatAsk
    """What is asked."""
    is_streamed: bool
    """As server-sent events instead of one JSON object."""
    with_usage: bool
    """The stream ends with token counts; a JSON object always has them."""


_decoder = msgspec.json.Decoder(WireRequest)
_encoder = msgspec.json.Encoder()


def decode_chat(body: bytes) -> ChatRequest:
    """Validates a request. Raises MalformedRequest naming the key that is wrong or not supported."""
    try:
        wire = _decoder.decode(body)
    except msgspec.DecodeError:
        wire = _decode_with_extras(body)
    if wire.n not in (None, 1):
        raise MalformedRequest(f"n must be 1, got {wire.n}; ask once for each sample")
    if not wire.messages:
        raise MalformedRequest("messages is empty; send at least one")
    if wire.tool_choice not in (None, "auto", "none"):
        raise MalformedRequest(f"tool_choice must be 'auto' or 'none', got {wire.tool_choice!r}; calls cannot be forced")
    ask = ChatAsk(
        messages=tuple([_message(place, message) for place, message in enumerate(wire.messages)]),
        tools=_tool_offer(bytes(wire.tools)) if bytes(wire.tools) != b"null" else ToolOffer(),
        may_call=wire.tool_choice != "none",
        asked=_asked(wire),
    )
    with_usage = wire.stream_options is not None and bool(wire.stream_options.include_usage)
    return ChatRequest(ask, bool(wire.stream), with_usage)


def chat_answer(committed: Committed, *, model: str, created: int) -> WireAnswer:
    """What is answered, whole; `created` in Unix seconds."""
    completion, message = committed.completion, committed.message
    calls = [WireCall(call.call_id, WireFunction(call.name, call.arguments)) for call in message.tool_calls]
    reply = WireReplyMessage("assistant", message.content or (None if calls else ""), calls or UNSET)
    finish = "tool_calls" if calls else completion.generation.finish_reason
    num_prompt, num_sampled = len(completion.prompt_ids), completion.num_sampled
    usage = WireUsage(num_prompt, num_sampled, num_prompt + num_sampled)
    return WireAnswer(f"chatcmpl-{completion.completion_id}", model, created, [WireChoice(reply, finish)], usage)


def encode_chat(answer: WireAnswer) -> bytes:
    """The answer as one JSON object; sse.py writes it as events."""
    return _encoder.encode(answer)


def encode_models(model: str) -> bytes:
    """The list of the one model."""
    return _encoder.encode({"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "trunkline"}]})


def encode_error(message: str, *, kind: str, code: str) -> bytes:
    """OpenAI's error object."""
    return _encoder.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})


def _decode_with_extras(body: bytes) -> WireRequest:
    """The slow path: drops keys that change nothing, refuses the others by name."""
    try:
        keys = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedRequest(f"the body is not JSON: {error}") from error
    if not isinstance(keys, dict):
        raise MalformedRequest(f"the body must be a JSON object, got {type(keys).__name__}")
    kept = {}
    for key, value in keys.items():
        if key in _HARMLESS or (key not in WireRequest.__struct_fields__ and value is None) or value in _NEUTRAL.get(key, ()):
            continue
        if key not in WireRequest.__struct_fields__:
            raise MalformedRequest(f"the key {key!r} is not supported and would change the result; leave it out")
        kept[key] = value
    try:
        return _decoder.decode(_encoder.encode(kept))
    except msgspec.DecodeError as error:
        raise MalformedRequest(f"not a chat completions request: {error}") from error


def _message(place: int, wire: WireMessage) -> Message:
    content = wire.content
    if isinstance(content, list):
        odd = [part.type for part in content if part.type != "text"]
        if odd:
            raise MalformedRequest(f"messages[{place}]: content parts of type {odd[0]!r} are not supported; send text")
        content = "".join(part.text for part in content)
    if wire.role == "tool" and wire.tool_call_id is None:
        raise MalformedRequest(f"messages[{place}]: a tool message needs the tool_call_id that it answers")
    if wire.tool_calls and wire.role != "assistant":
        raise MalformedRequest(f"messages[{place}]: only an assistant message has tool_calls, this one is of role {wire.role!r}")
    role: Role = "system" if wire.role == "developer" else wire.role
    calls = tuple([ToolCall(call.id, call.function.name, call.function.arguments) for call in wire.tool_calls or ()])
    return Message(role, content or "", calls, wire.tool_call_id)


@functools.lru_cache(maxsize=256)
def _tool_offer(raw: bytes) -> ToolOffer:
    """Agents send the same tools with every call, so their bytes are decoded once."""
    try:
        wires = msgspec.json.decode(raw, type=list[WireTool])
    except msgspec.DecodeError as error:
        raise MalformedRequest(f"tools: {error}") from error
    specs = tuple(ToolSpec(one.function.name, one.function.description or "", one.function.parameters or {}) for one in wires)
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise MalformedRequest(f"tools: names must differ, got {names}")
    key = _encoder.encode([(spec.name, spec.description, spec.parameters) for spec in specs]) if specs else b""
    return ToolOffer(specs, key)


def _asked(wire: WireRequest) -> AskedSampling:
    limits = [limit for limit in (wire.max_tokens, wire.max_completion_tokens) if limit is not None]
    if limits and min(limits) < 1:
        raise MalformedRequest(f"max_tokens must be at least 1, got {min(limits)}")
    stop = (wire.stop,) if isinstance(wire.stop, str) else tuple(wire.stop or ())
    return AskedSampling(min(limits, default=None), wire.temperature, wire.top_p, wire.seed, stop)
