"""OpenAI's Responses: decodes and validates requests. Owns no item (responses_items.py), no answer (responses_answer.py) and no HTTP.

What a training session does with what a client asks:

    instructions, input, tools, max_output_tokens, logprobs, stream     honoured; the recipe's own token limit holds as well
    previous_response_id, item_reference                    resolved within the session. As the API has it, the instructions of the
                                                            earlier response are not carried over: they are taken out
    temperature, top_p                                      recorded and not used: a training session samples the policy itself
    tool_choice 'required' or a tool, text.format, reasoning.effort, hosted tools, truncation 'auto', unknown keys, ...
                                                            recorded as not honoured, and said in the answer's header
    background, conversation                                refused: their answers would have to be fetched, or live elsewhere
    keys that change no token, such as user or store        accepted
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw, Struct

from trunkline.errors import MalformedRequest
from trunkline.gateway import responses_answer
from trunkline.gateway.json_in import read_body
from trunkline.gateway.responses_items import Conversation, read_items
from trunkline.gateway.responses_tools import OfferedTools, offered_tools
from trunkline.gateway.sampling import AskedSampling
from trunkline.gateway.wire import Answer, Ask, Failed, Past, each_once
from trunkline.types import Message

_HARMLESS = frozenset(
    (
        "access_programs",
        "background_options",
        "client_metadata",
        "image",
        "max_tool_calls",  # counts calls of hosted tools
        "prompt_cache_options",
        "prompt_cache_retention",
        "service_tier",
        "store",
        "stream_options",
    )
)
"""Keys that change no token of an answer."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "truncation": ("disabled",),
    "parallel_tool_calls": (True,),
    "top_logprobs": (0,),
    "context_management": ([],),
}
"""Keys that are honoured only in that these values, or null, mean the same as leaving them out."""

_ECHOED = ("instructions", "max_output_tokens", "metadata", "previous_response_id", "prompt_cache_key", "safety_identifier", "user")


class WireTextFormat(Struct):
    """How the text is wanted."""

    type: str = "text"


class WireText(Struct):
    """How the text is wanted."""

    format: WireTextFormat | None = None
    verbosity: str | None = None


class WireReasoning(Struct):
    """How the model shall think; summaries are the text itself here."""

    effort: str | None = None
    mode: str | None = None
    context: str | None = None


class WireBody(Struct, forbid_unknown_fields=True):
    """The keys that this gateway understands."""

    input: str | list[Raw] | None = None
    instructions: str | None = None
    model: str | None = None
    tools: Raw = Raw(b"null")
    tool_choice: str | dict[str, Any] | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    include: list[str] | None = None
    previous_response_id: str | None = None
    text: WireText | None = None
    reasoning: WireReasoning | None = None
    background: bool | None = None
    conversation: Any = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None


@dataclass(frozen=True)
class ResponsesRequest:
    """A validated request: what is asked, and in which form the answer is wanted. See WireRequest (wire.py)."""

    ask: Ask
    """What is asked."""
    is_streamed: bool
    """As server-sent events instead of one JSON object."""
    form: responses_answer.ResponsesForm
    """What the answer says beside what was sampled."""

    def body(self, answer: Answer) -> bytes:
        """A response object."""
        return responses_answer.encode(responses_answer.response_object(answer, self.form))

    def events(self, answer: Answer) -> Iterator[bytes]:
        """response.created ... response.completed or response.incomplete."""
        return responses_answer.response_events(answer, self.form)


class ResponsesWire:
    """The API. See WireAPI (wire.py)."""

    name = "responses"

    def decode(self, body: bytes, past: Past) -> ResponsesRequest:
        """Validates a request. Raises MalformedRequest naming the key that is wrong."""
        return decode_responses(body, past)

    def refusal(self, failure: Failed) -> bytes:
        """OpenAI's error object."""
        return responses_answer.encode_error(failure)

    def failure_event(self, failure: Failed) -> bytes:
        """`error`, then `response.failed`: clients read one or the other."""
        return responses_answer.failure_events(failure)


_decoder = msgspec.json.Decoder(WireBody)
_encoder = msgspec.json.Encoder()


def decode_responses(body: bytes, past: Past) -> ResponsesRequest:
    """Validates a request. Raises MalformedRequest naming the key that is wrong."""
    not_honoured: list[str] = []
    try:
        wire = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        wire = read_body(body, WireBody, harmless=_HARMLESS, neutral=_NEUTRAL, not_honoured=not_honoured)
    _refuse_what_lives_elsewhere(wire)
    not_honoured += _not_honoured(wire)
    told = _told(wire, past)
    tools = offered_tools((bytes(wire.tools), *told.more_tools))
    include = wire.include or ()
    keeps_encrypted = "reasoning.encrypted_content" in include
    ask = Ask(
        messages=(*_earlier(wire, past), *told.messages),
        tools=tools.offer,
        may_call=wire.tool_choice != "none",
        asked=_asked(wire),
        wire=ResponsesWire.name,
        keeps_reasoning=told.has_reasoning or keeps_encrypted,
        not_honoured=each_once((*not_honoured, *tools.not_honoured, *told.not_honoured)),
    )
    if not ask.messages:
        raise MalformedRequest("input: it is empty; send at least one message")
    form = _form(wire, tools, with_encrypted_reasoning=keeps_encrypted, with_logprobs="message.output_text.logprobs" in include)
    return ResponsesRequest(ask, bool(wire.stream), form)


def _refuse_what_lives_elsewhere(wire: WireBody) -> None:
    if wire.background:
        raise MalformedRequest("background: answers cannot be fetched later; leave it out and wait, or stream")
    if wire.conversation is not None:
        raise MalformedRequest("conversation: conversations are not kept by name; send the items, or previous_response_id")
    if wire.input is None and wire.previous_response_id is None:
        raise MalformedRequest("input: it is missing; send a text or a list of items")


def _not_honoured(wire: WireBody) -> Iterator[str]:
    if wire.tool_choice not in (None, "auto", "none"):
        yield f"tool_choice {_encoder.encode(wire.tool_choice).decode()}: calls cannot be forced"[:200]
    if wire.text and wire.text.format and wire.text.format.type != "text":
        yield f"text.format {wire.text.format.type!r}: the text is not constrained"[:200]
    if wire.text and wire.text.verbosity not in (None, "medium"):
        yield f"text.verbosity {wire.text.verbosity!r}"[:200]
    if wire.reasoning is not None:
        asked = {"effort": wire.reasoning.effort, "mode": wire.reasoning.mode, "context": wire.reasoning.context}
        for key, value in asked.items():
            if value not in (None, "auto", "standard"):
                yield f"reasoning.{key} {value!r}"[:200]


def _earlier(wire: WireBody, past: Past) -> Iterator[Message]:
    """Instructions, and the conversation behind `previous_response_id` without those of its own."""
    if wire.instructions:
        yield Message("system", wire.instructions)
    if wire.previous_response_id is not None:
        completion_id, has_instructions = responses_answer.completion_of(wire.previous_response_id)
        messages = past(completion_id)
        if not messages:
            raise MalformedRequest(f"previous_response_id: no response {wire.previous_response_id!r} in this session; send its items")
        yield from messages[1:] if has_instructions else messages


def _told(wire: WireBody, past: Past) -> Conversation:
    if isinstance(wire.input, str):
        return Conversation((Message("user", wire.input),))
    return read_items(wire.input or (), past)


def _asked(wire: WireBody) -> AskedSampling:
    if wire.max_output_tokens is not None and wire.max_output_tokens < 1:
        raise MalformedRequest(f"max_output_tokens: it must be at least 1, got {wire.max_output_tokens}")
    return AskedSampling(wire.max_output_tokens, wire.temperature, wire.top_p)


def _form(wire: WireBody, tools: OfferedTools, *, with_encrypted_reasoning: bool, with_logprobs: bool) -> responses_answer.ResponsesForm:
    return responses_answer.ResponsesForm(
        forms=tools.forms,
        with_encrypted_reasoning=with_encrypted_reasoning,
        with_logprobs=with_logprobs,
        tools=tools.echoed,
        may_call=wire.tool_choice != "none",
        echoed={key: getattr(wire, key) for key in _ECHOED} | {"metadata": wire.metadata or {}},
    )
