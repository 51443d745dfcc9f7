"""Streamed answers as server-sent events: their life on the wire, and their frames. Owns no API's events and no status code.

call ──► done? ── yes ──► 200, events                  (a failure is still an ordinary status)
           └── not yet ──► 200, ': keep-alive' until recorded ──► events
                                               └── failed ──► the API's error event, and no end

Commit first, then stream: what is streamed is a recorded answer, cut up. So a stream says what the JSON answer would, its
tokens never come from a parser that runs beside the sampler, and a client that leaves or does not read changes no record.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from starlette.responses import Response, StreamingResponse

from trunkline.errors import TrunklineError
from trunkline.gateway.gateway import Call
from trunkline.gateway.wire import Committed

KEEP_ALIVE_S = 5.0
"""Proxies and clients give up on silence after 10 s or more."""
PIECE_CHARS = 256
"""Longest piece of text in one event: clients that read line by line hold lines of 64 KiB or so."""

_KEEP_ALIVE = b": keep-alive\n\n"
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
# Many clients cut their text with str.splitlines(), which also cuts at these; JSON may hold them, and may escape them.
_LINE_ENDS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))


def stream_events(
    call: Call,
    events: Callable[[tuple[Committed, ...]], Iterable[bytes]],
    failure_event: Callable[[TrunklineError], bytes],
    *,
    keep_alive_s: float,
) -> Response:
    """The streamed answer to a call, begun now: the caller has waited a while for it to be done.

    Args:
        call: runs to its end whatever becomes of the client; one that leaves before the last event has not got its answer.
        events: the recorded answer as framed events; encoded only as fast as the client reads.
        failure_event: the framed event that says a failure after the first byte.
        keep_alive_s: between comments while the call is not recorded.

    Raises what the call raises, if it fails before anything was sent.
    """
    if call.is_done:
        call.result()
    return StreamingResponse(_parts(call, events, failure_event, keep_alive_s), media_type="text/event-stream", headers=_HEADERS)


def frame(data: bytes, *, event: str | None = None) -> bytes:
    """One event of JSON, which holds no line feed of its own (WHATWG HTML, section 9.2.6)."""
    for raw, escaped in _LINE_ENDS:
        data = data.replace(raw, escaped)
    return (b"" if event is None else b"event: " + event.encode() + b"\n") + b"data: " + data + b"\n\n"


def pieces(text: str) -> Iterator[str]:
    """A text cut up for events; none of an empty one."""
    return (text[start : start + PIECE_CHARS] for start in range(0, len(text), PIECE_CHARS))


async def _parts(
    call: Call,
    events: Callable[[tuple[Committed, ...]], Iterable[bytes]],
    failure_event: Callable[[TrunklineError], bytes],
    keep_alive_s: float,
) -> AsyncIterator[bytes]:
    is_delivered = False
    try:
        while not call.is_done:
            yield _KEEP_ALIVE
            await call.wait(keep_alive_s)
        try:
            samples = call.result()
        except TrunklineError as error:
            yield failure_event(error)
            is_delivered = True
            return
        for event in events(samples):
            yield event
        is_delivered = True
    finally:
        if not is_delivered:
            call.leave()
