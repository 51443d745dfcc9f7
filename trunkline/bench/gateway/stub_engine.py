"""An engine that answers at once, behind vLLM's wire shape on a Unix socket. Owns its own times; samples nothing.

    python -m trunkline.bench.gateway.stub_engine --socket PATH --replies FILE

Answers each prompt with one of the prepared replies, chosen by the call's seed. GET /times gives the seconds that each request
took in here since the last such call: from its first byte to its answer handed over.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from trunkline.asgi import serve_uds
from trunkline.bench.gateway.child import until_parent_is_gone
from trunkline.engine import wire
from trunkline.types import FinishReason, Generation, PolicyVersion, VersionSpan

_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder(wire.WireRequest).decode
_VERSION = PolicyVersion(1, 0)
_OK = b"{}"

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class StubEngine:
    """An ASGI app."""

    def __init__(self, replies: list[list[int]]) -> None:
        self._replies = replies
        self._seconds: dict[str, float] = {}

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        started = time.perf_counter()
        body = await _read(receive)
        if scope["path"] == wire.GENERATE:
            asked = _DECODE(body)
            await _answer(send, _ENCODE(wire.WireGeneration.pack(asked.request_id, self._generation(asked))))
            self._seconds[asked.request_id] = time.perf_counter() - started
        elif scope["path"] == "/times":
            times, self._seconds = self._seconds, {}
            await _answer(send, _ENCODE(times))
        else:
            await _answer(send, _OK)

    def _generation(self, asked: wire.WireRequest) -> Generation:
        reply = self._replies[asked.sampling_params.seed % len(self._replies)][: asked.sampling_params.max_tokens]
        finish: FinishReason = "stop" if reply[-1] in asked.sampling_params.stop_token_ids else "length"
        return Generation(tuple(reply), (-0.5,) * len(reply), finish, (VersionSpan(0, len(reply), _VERSION),))


async def _read(receive: Receive) -> bytes:
    parts = []
    while True:
        event = await receive()
        parts.append(event.get("body", b""))
        if not event.get("more_body"):
            return b"".join(parts)


async def _answer(send: Send, content: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _serve(socket: Path, replies: list[list[int]]) -> None:
    serving = await serve_uds(StubEngine(replies), socket)
    await until_parent_is_gone()
    await serving.stop()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m trunkline.bench.gateway.stub_engine")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--replies", type=Path, required=True)
    arguments = parser.parse_args()
    replies = msgspec.json.decode(arguments.replies.read_bytes(), type=list[list[int]])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(arguments.socket, replies))


if __name__ == "__main__":
    main()
