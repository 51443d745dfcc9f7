"""OpenAI's Chat Completions: writes answers, as one object or as chunks. Owns no request and no HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from trunkline.gateway.custom_calls import custom_call
from trunkline.gateway.sse import frame, pieces
from trunkline.gateway.wire import Answer, Committed, Failed
from trunkline.types import ToolCall

_LOGPROBS_AN_EVENT = 64


@dataclass(frozen=True)
class ChatForm:
    """What an answer says beside the message."""

    with_usage: bool = False
    """The stream ends with token counts; a JSON object always has them."""
    with_logprobs: bool = False
    """The log-probability of every sampled token, under the distribution it was sampled from."""
    custom_tools: frozenset[str] = frozenset()
    """Tools whose calls are answered as free text."""


class WireFunction(Struct, omit_defaults=True):
    """The function of a call, or more of it; in a stream the name comes once, arguments in pieces."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class WireCustom(Struct, omit_defaults=True):
    """The custom tool of a call, or more of it."""

    name: str | UnsetType = UNSET
    input: str | UnsetType = UNSET


class WireCall(Struct, omit_defaults=True):
    """A call, or in a stream more of the call at `index`; id and type come once."""

    index: int | UnsetType = UNSET
    id: str | UnsetType = UNSET
    type: Literal["function", "custom"] | UnsetType = UNSET
    function: WireFunction | UnsetType = UNSET
    custom: WireCustom | UnsetType = UNSET


class WireReply(Struct, omit_defaults=True):
    """The assistant message of an answer, or in a stream more of it."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[WireCall] | UnsetType = UNSET


class WireLogprob(Struct):
    """One sampled token."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[Any] = []


class WireLogprobs(Struct):
    """All sampled tokens, in order."""

    content: list[WireLogprob]


class WireChoice(Struct):
    """One sample of an answer."""

    index: int
    message: WireReply
    finish_reason: str
    logprobs: WireLogprobs | None = None


class WireUsage(Struct):
    """Token counts of an answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class WireCompletion(Struct):
    """A chat.completion object."""

    id: str
    model: str
    created: int
    choices: list[WireChoice]
    usage: WireUsage
    object: str = "chat.completion"


class WireChunkChoice(Struct):
    """More of one sample."""

    delta: WireReply
    finish_reason: str | None = None
    index: int = 0
    logprobs: WireLogprobs | None = None


class WireChunk(Struct, omit_defaults=True):
    """A chat.completion.chunk object."""

    id: str
    object: str
    created: int
    model: str
    choices: list[WireChunkChoice]
    usage: WireUsage | UnsetType | None = UNSET


_encoder = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    """JSON."""
    return _encoder.encode(value)


def encode_models(model: str) -> bytes:
    """The list of the one model."""
    return encode({"object": "list", "data": [model_object(model)]})


def model_object(model: str) -> dict[str, Any]:
    """A model object."""
    return {"id": model, "object": "model", "created": 0, "owned_by": "trunkline"}


def encode_error(failure: Failed) -> bytes:
    """OpenAI's error object."""
    return encode({"error": {"message": failure.message, "type": failure.kind, "param": None, "code": failure.code}})


def chat_completion(answer: Answer, form: ChatForm) -> WireCompletion:
    """What is answered, whole."""
    choices = [_choice(index, one, answer, form) for index, one in enumerate(answer.samples)]
    usage = WireUsage(answer.num_prompt, answer.num_sampled, answer.num_prompt + answer.num_sampled)
    return WireCompletion(f"chatcmpl-{answer.samples[0].completion.completion_id}", answer.model, answer.created, choices, usage)


def chat_events(answer: Answer, form: ChatForm) -> Iterator[bytes]:
    """An answer as chat.completion.chunk objects, then [DONE]: of each sample role, thinking, text, calls, log-probabilities
    and finish reason; then usage if asked. Joined by OpenAI's rules they say exactly what the answer says.
    """
    whole = chat_completion(answer, form)

    def chunk(*choices: WireChunkChoice, usage: WireUsage | None = None) -> bytes:
        stated = usage if form.with_usage else UNSET
        return frame(encode(WireChunk(whole.id, "chat.completion.chunk", whole.created, whole.model, list(choices), stated)))

    for choice in whole.choices:
        for delta in _deltas(choice.message):
            yield chunk(WireChunkChoice(delta, index=choice.index))
        for some in _batches(choice.logprobs.content if choice.logprobs else ()):
            yield chunk(WireChunkChoice(WireReply(), index=choice.index, logprobs=WireLogprobs(some)))
        yield chunk(WireChunkChoice(WireReply(), choice.finish_reason, choice.index))
    if form.with_usage:
        yield chunk(usage=whole.usage)
    yield frame(b"[DONE]")


def _choice(index: int, one: Committed, answer: Answer, form: ChatForm) -> WireChoice:
    message = one.message
    calls = [_call(call, form.custom_tools) for call in message.tool_calls]
    content = message.content or (None if calls else "")
    reply = WireReply("assistant", content, message.reasoning or UNSET, calls or UNSET)
    finish = "tool_calls" if calls else one.completion.generation.finish_reason
    return WireChoice(index, reply, finish, _logprobs(one, answer) if form.with_logprobs else None)


def _call(call: ToolCall, custom: frozenset[str]) -> WireCall:
    if call.name in custom:
        call_id, text = custom_call(call)
        return WireCall(id=call_id, type="custom", custom=WireCustom(call.name, text))
    return WireCall(id=call.call_id, type="function", function=WireFunction(call.name, call.arguments))


def _logprobs(one: Committed, answer: Answer) -> WireLogprobs:
    generation = one.completion.generation
    texts = [answer.text((token,)) for token in generation.token_ids]
    return WireLogprobs(
        [WireLogprob(text, logprob, list(text.encode(errors="replace"))) for text, logprob in zip(texts, generation.logprobs, strict=True)]
    )


def _batches(content: Sequence[WireLogprob]) -> Iterator[list[WireLogprob]]:
    return (list(content[start : start + _LOGPROBS_AN_EVENT]) for start in range(0, len(content), _LOGPROBS_AN_EVENT))


def _deltas(message: WireReply) -> Iterator[WireReply]:
    yield WireReply(role="assistant", content=None if message.content is None else "")
    for piece in pieces(message.reasoning_content or ""):
        yield WireReply(reasoning_content=piece)
    for piece in pieces(message.content or ""):
        yield WireReply(content=piece)
    for index, call in enumerate(message.tool_calls or ()):
        yield from _call_deltas(index, call)


def _call_deltas(index: int, call: WireCall) -> Iterator[WireReply]:
    """Name, id and type, then the arguments or the input in pieces."""
    if call.custom:
        yield WireReply(tool_calls=[WireCall(index, call.id, call.type, custom=WireCustom(call.custom.name, ""))])
        for piece in pieces(call.custom.input or ""):
            yield WireReply(tool_calls=[WireCall(index, custom=WireCustom(input=piece))])
    elif call.function:
        yield WireReply(tool_calls=[WireCall(index, call.id, call.type, WireFunction(call.function.name, ""))])
        for piece in pieces(call.function.arguments or ""):
            yield WireReply(tool_calls=[WireCall(index, function=WireFunction(arguments=piece))])
