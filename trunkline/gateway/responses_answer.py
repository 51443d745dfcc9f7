"""OpenAI's Responses: writes answers, as one response object or as events. Owns no request and no HTTP.

One sampled turn is cut into items: reasoning, if any; a message, if there is text or nothing else to call; a call each. What
the object says of sampling and tools is what was done, not what was asked.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from trunkline.gateway.responses_calls import CallForm, CallItem, CustomCallItem, FunctionCallItem, Status, call_item
from trunkline.gateway.sse import PIECE_CHARS, frame, pieces
from trunkline.gateway.wire import Answer, Committed, Failed

_WITH_INSTRUCTIONS = "_i"
_PARAM = re.compile(r"[a-z_]+(?:\[\d+\]|\.[a-z_]+)*(?=: )")


@dataclass(frozen=True)
class ResponsesForm:
    """What an answer says beside what was sampled."""

    forms: Mapping[str, CallForm] = field(default_factory=dict)
    """How calls of tools are answered, where not as plain functions."""
    with_encrypted_reasoning: bool = False
    """Reasoning also comes as encrypted_content, for clients that keep only that."""
    with_logprobs: bool = False
    """Log-probabilities of the tokens of the text, under the distribution they were sampled from."""
    tools: tuple[Raw, ...] = ()
    """Those that were offered, as they were sent."""
    may_call: bool = True
    """Calls were allowed."""
    echoed: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the request that the object repeats."""


class LogprobItem(Struct):
    """One sampled token; `bytes` is empty where it is only part of a character."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[Any] = []


class TextPart(Struct, tag="output_text", tag_field="type"):
    """The text of a message."""

    text: str
    annotations: list[Any] = []
    logprobs: list[LogprobItem] = []


class ReasoningPart(Struct, tag="reasoning_text", tag_field="type"):
    """The text of reasoning."""

    text: str


class ReasoningItem(Struct, tag="reasoning", tag_field="type"):
    """What the model thought."""

    id: str
    content: list[ReasoningPart]
    status: Status = "completed"
    summary: list[Any] = []
    encrypted_content: str | UnsetType = UNSET


class MessageItem(Struct, tag="message", tag_field="type"):
    """What the model said."""

    id: str
    content: list[TextPart]
    status: Status = "completed"
    role: Literal["assistant"] = "assistant"


Text = Callable[[Sequence[int]], str]
OutputItem = ReasoningItem | MessageItem | CallItem


def encode(value: Any) -> bytes:
    """JSON."""
    return msgspec.json.encode(value)


def encode_error(failure: Failed) -> bytes:
    """OpenAI's error object; the key that is wrong stands at the beginning of our messages."""
    return encode({"error": _error(failure)})


def failure_events(failure: Failed) -> bytes:
    """Two events: `error`, at which OpenAI's SDKs raise, and `response.failed`, at which Codex stops, or asks again."""
    error = _error(failure)
    said = {"type": "error", "sequence_number": 0, "code": error["code"], "message": error["message"], "param": error["param"]}
    code = {400: "invalid_prompt", 429: "insufficient_quota"}.get(failure.status, "server_error")
    response = {"id": "resp_failed", "object": "response", "created_at": 0, "status": "failed", "model": "", "output": [], "tools": []}
    response |= {"tool_choice": "auto", "parallel_tool_calls": True, "error": {"code": code, "message": failure.message}}
    lost = {"type": "response.failed", "sequence_number": 1, "response": response}
    return frame(encode(said | {"error": error}), event="error") + frame(encode(lost), event="response.failed")


def response_object(answer: Answer, form: ResponsesForm) -> dict[str, Any]:
    """What is answered, whole."""
    (one,) = answer.samples
    usage = {
        "input_tokens": answer.num_prompt,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": answer.num_sampled,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.num_prompt + answer.num_sampled,
    }
    status = _status(one)
    cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
    return _begun(answer, form) | {"status": status, "incomplete_details": cut, "output": _output(one, answer, form), "usage": usage}


def response_events(answer: Answer, form: ResponsesForm) -> Iterator[bytes]:
    """An answer as the API's events, numbered from 0; the last one holds the object that `response_object` says."""
    number = 0

    def event(kind: str, **said: Any) -> bytes:
        nonlocal number
        number += 1
        return frame(encode({"type": kind, "sequence_number": number - 1, **said}), event=kind)

    begun, whole = _begun(answer, form), response_object(answer, form)
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    for index, item in enumerate(whole["output"]):
        for kind, said in _item_events(item):
            yield event(kind, output_index=index, **said)
    yield event(f"response.{whole['status']}", response=whole)


# --- the object -------------------------------------------------------------------------------------------------------


def _begun(answer: Answer, form: ResponsesForm) -> dict[str, Any]:
    """The response object before anything is answered."""
    completion = answer.samples[0].completion
    return {
        "id": response_id(completion.completion_id, has_instructions=bool(form.echoed.get("instructions"))),
        "object": "response",
        "created_at": answer.created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": answer.model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": completion.sampling.temperature,
        "top_p": completion.sampling.top_p,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto" if form.may_call else "none",
        "tools": form.tools,
        "truncation": "disabled",
        "usage": None,
        **form.echoed,
    }


def response_id(completion_id: str, *, has_instructions: bool) -> str:
    """Says whether the conversation begins with `instructions`, which the API doesn't carry over to the next response."""
    return f"resp_{completion_id}{_WITH_INSTRUCTIONS if has_instructions else ''}"


def completion_of(wire_id: str) -> tuple[str, bool]:
    """The completion that a response id names, and whether `instructions` begin its conversation."""
    name = wire_id.removeprefix("resp_")
    return name.removesuffix(_WITH_INSTRUCTIONS), name.endswith(_WITH_INSTRUCTIONS)


def _status(one: Committed) -> Status:
    return "incomplete" if one.completion.generation.finish_reason == "length" else "completed"


def _output(one: Committed, answer: Answer, form: ResponsesForm) -> list[OutputItem]:
    message, completion_id, status = one.message, one.completion.completion_id, _status(one)
    items: list[OutputItem] = []
    if message.reasoning:
        kept = base64.b64encode(message.reasoning.encode(errors="replace")).decode() if form.with_encrypted_reasoning else UNSET
        items.append(ReasoningItem(f"rs_{completion_id}", [ReasoningPart(message.reasoning)], encrypted_content=kept))
    if message.content or not message.tool_calls:
        logprobs = _logprobs(one, answer.text) if form.with_logprobs else []
        items.append(MessageItem(f"msg_{completion_id}", [TextPart(message.content, logprobs=logprobs)], status))
    for place, call in enumerate(message.tool_calls):
        items.append(call_item(call, form.forms.get(call.name, CallForm()), completion_id, place))
    return items


def _logprobs(one: Committed, text: Text) -> list[LogprobItem]:
    """Of every token that wrote a character of the content; none if the content is not found in the text of the tokens."""
    generation, message = one.completion.generation, one.message
    whole = text(generation.token_ids)
    thought = whole.find(message.reasoning) + len(message.reasoning) if message.reasoning else 0
    start = whole.find(message.content, max(thought, 0))
    if start < 0 or not message.content:
        return []
    first = _num_tokens(whole[:start], generation.token_ids, text)
    if len(text(generation.token_ids[:first])) > start:  # this token wrote what is before the content, and its beginning
        first -= 1
    last = _num_tokens(whole[: start + len(message.content)], generation.token_ids, text)
    sampled = zip(generation.token_ids[first:last], generation.logprobs[first:last], strict=True)
    return [_logprob(text((token,)), logprob) for token, logprob in sampled]


def _num_tokens(beginning: str, token_ids: Sequence[int], text: Text) -> int:
    """The fewest leading tokens whose text begins so."""
    low, high = 0, len(token_ids)
    while low < high:
        middle = (low + high) // 2
        if text(token_ids[:middle]).startswith(beginning):
            high = middle
        else:
            low = middle + 1
    return low


def _logprob(token: str, logprob: float) -> LogprobItem:
    return LogprobItem(token, logprob, [] if "\ufffd" in token else list(token.encode(errors="replace")))


# --- events -----------------------------------------------------------------------------------------------------------


def _item_events(item: OutputItem) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kinds and contents of the events that say an item."""
    begun: OutputItem
    inner: Iterator[tuple[str, dict[str, Any]]]
    match item:
        case ReasoningItem():
            begun = msgspec.structs.replace(item, status="in_progress", content=[], encrypted_content=UNSET)
            inner = _part_events(item.id, item.content[0], "response.reasoning_text")
        case MessageItem():
            begun = msgspec.structs.replace(item, status="in_progress", content=[])
            inner = _part_events(item.id, item.content[0], "response.output_text")
        case FunctionCallItem():
            begun = msgspec.structs.replace(item, status="in_progress", arguments="")
            inner = _call_events(item.id, "response.function_call_arguments", "arguments", item.arguments)
        case CustomCallItem():
            begun = msgspec.structs.replace(item, status="in_progress", input="")
            inner = _call_events(item.id, "response.custom_tool_call_input", "input", item.input)
        case _:
            begun = msgspec.structs.replace(item, status="in_progress")
            inner = iter(())
    yield "response.output_item.added", {"item": begun}
    yield from inner
    yield "response.output_item.done", {"item": item}


def _call_events(item_id: str, kind: str, key: str, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for piece in pieces(text):
        yield f"{kind}.delta", {"item_id": item_id, "delta": piece}
    yield f"{kind}.done", {"item_id": item_id, key: text}


def _part_events(item_id: str, part: TextPart | ReasoningPart, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The one part of an item: begun, said, done."""
    at = {"item_id": item_id, "content_index": 0}
    logprobs = part.logprobs if isinstance(part, TextPart) else None
    empty = ReasoningPart("") if logprobs is None else TextPart("")
    yield "response.content_part.added", {**at, "part": empty}
    for piece, told in zip(pieces(part.text), _by_piece(logprobs or (), part.text), strict=True):
        yield f"{kind}.delta", {**at, "delta": piece, **({} if logprobs is None else {"logprobs": told})}
    yield f"{kind}.done", {**at, "text": part.text, **({} if logprobs is None else {"logprobs": logprobs})}
    yield "response.content_part.done", {**at, "part": part}


def _by_piece(logprobs: Sequence[LogprobItem], text: str) -> list[list[LogprobItem]]:
    """Each token goes with the piece that it begins in."""
    groups: list[list[LogprobItem]] = [[] for _ in pieces(text)]
    start = 0
    for one in logprobs:
        groups[min(start // PIECE_CHARS, len(groups) - 1)].append(one)
        start += len(one.token)
    return groups


def _error(failure: Failed) -> dict[str, Any]:
    found = _PARAM.match(failure.message) if failure.status == 400 else None
    code = "previous_response_not_found" if found and found[0] == "previous_response_id" else failure.code
    return {"message": failure.message, "type": failure.kind, "param": found[0] if found else None, "code": code}
