"""Streamed answers as server-sent events: their life on the wire, and Chat Completions' chunks. Samples nothing; owns no status code.

call ──► recorded? ── within keep_alive_s ──► 200, events ... [DONE]       (a failure is still an ordinary status)
            └── later ──► 200, ': keep-alive' until recorded ──► events ... [DONE]
                                               └── failed ──► an error event, and no [DONE]

Commit first, then stream: what is streamed is a recorded answer, cut up. So a stream says what the JSON answer would, its
tokens never come from a parser that runs beside the sampler, and a client that leaves or does not read changes no record.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.responses import Response, StreamingResponse

from trunkline.errors import TrunklineError
from trunkline.gateway.chat_wire import WireAnswer, WireReplyMessage, WireUsage
from trunkline.gateway.recorder import Committed

KEEP_ALIVE_S = 5.0
"""Proxies and clients give up on silence after 10 s or more."""
PIECE_CHARS = 256
"""Longest piece of text in one event: clients that read line by line hold lines of 64 KiB or so."""

_KEEP_ALIVE = b": keep-alive\n\n"
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
# Many clients cut their text with str.splitlines(), which also cuts at these; JSON may hold them, and may escape them.
_LINE_ENDS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))

_encoder = msgspec.json.Encoder()


class WireFunctionDelta(Struct, omit_defaults=True):
    """More of a call's function; the name comes once, arguments in pieces."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class WireCallDelta(Struct, omit_defaults=True):
    """More of the call at `index`; id and type come once."""

    index: int
    function: WireFunctionDelta
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class WireDelta(Struct, omit_defaults=True):
    """More of the message."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    tool_calls: list[WireCallDelta] | UnsetType = UNSET


class WireChunkChoice(Struct):
    """More of the one choice."""

    delta: WireDelta
    finish_reason: str | None = None
    index: int = 0
    logprobs: None = None


class WireChunk(Struct, omit_defaults=True):
    """A chat.completion.chunk object."""

    id: str
    object: str
    created: int
    model: str
    choices: list[WireChunkChoice]
    usage: WireUsage | UnsetType | None = UNSET


async def stream_events(
    call: Coroutine[Any, Any, Committed],
    events: Callable[[Committed], Iterable[bytes]],
    failure_event: Callable[[TrunklineError], bytes],
    *,
    keep_alive_s: float,
) -> Response:
    """The streamed answer to a call, begun when it is recorded or `keep_alive_s` have passed.

    Args:
        call: runs to its end whatever becomes of the client.
        events: the recorded answer as the data of its events; encoded only as fast as the client reads.
        failure_event: the data that says a failure after the first byte.
        keep_alive_s: between comments while the call is not recorded.

    Raises what `call` raises, if it fails before anything was sent.
    """
    answering = asyncio.create_task(call)
    answering.add_done_callback(_mark_retrieved)
    await asyncio.wait({answering}, timeout=keep_alive_s)
    if answering.done():
        answering.result()
    parts = _parts(answering, events, failure_event, keep_alive_s)
    return StreamingResponse(parts, media_type="text/event-stream", headers=_HEADERS)


def chat_events(answer: WireAnswer, *, with_usage: bool) -> Iterator[bytes]:
    """An answer as chat.completion.chunk objects, then [DONE]: role, text, calls, finish reason, usage if asked.

    Joined by OpenAI's rules they say exactly what the answer says.
    """

    def chunk(*choices: WireChunkChoice, usage: WireUsage | None = None) -> bytes:
        stated = usage if with_usage else UNSET
        return _encoder.encode(WireChunk(answer.id, "chat.completion.chunk", answer.created, answer.model, list(choices), stated))

    (choice,) = answer.choices
    for delta in _deltas(choice.message):
        yield chunk(WireChunkChoice(delta))
    yield chunk(WireChunkChoice(WireDelta(), choice.finish_reason))
    if with_usage:
        yield chunk(usage=answer.usage)
    yield b"[DONE]"


def _deltas(message: WireReplyMessage) -> Iterator[WireDelta]:
    content = message.content or ""
    yield WireDelta(role="assistant", content=None if message.content is None else "")
    for piece in _pieces(content):
        yield WireDelta(content=piece)
    for index, call in enumerate(message.tool_calls or ()):
        opening = WireCallDelta(index, WireFunctionDelta(call.function.name, ""), call.id, "function")
        yield WireDelta(tool_calls=[opening])
        for piece in _pieces(call.function.arguments):
            yield WireDelta(tool_calls=[WireCallDelta(index, WireFunctionDelta(arguments=piece))])


def _pieces(text: str) -> Iterator[str]:
    return (text[start : start + PIECE_CHARS] for start in range(0, len(text), PIECE_CHARS))


async def _parts(
    answering: asyncio.Task[Committed],
    events: Callable[[Committed], Iterable[bytes]],
    failure_event: Callable[[TrunklineError], bytes],
    keep_alive_s: float,
) -> AsyncIterator[bytes]:
    while not answering.done():
        yield _KEEP_ALIVE
        await asyncio.wait({answering}, timeout=keep_alive_s)
    try:
        committed = answering.result()
    except TrunklineError as error:
        yield _framed(failure_event(error))
        return
    for data in events(committed):
        yield _framed(data)


def _framed(data: bytes) -> bytes:
    """One event of JSON, which holds no line feed of its own (WHATWG HTML, section 9.2.6)."""
    for raw, escaped in _LINE_ENDS:
        data = data.replace(raw, escaped)
    return b"data: " + data + b"\n\n"


def _mark_retrieved(answering: asyncio.Task[Committed]) -> None:
    """The client may be gone; the call's error is then nobody's, and asyncio need not report it as lost."""
    if not answering.cancelled():
        answering.exception()
