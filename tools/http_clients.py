"""CPU cost of one HTTP call by client and concurrency, against this project's own server. Owns the measurement behind docs/log.md.

.venv/bin/python -m tools.http_clients
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import httpx
import uvloop

from trunkline.asgi import serve_port

_BODY = b'{"a": 1}' * 90
_SERVER_S = 0.01
_NUM_CALLS = 3000


async def _app(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Reads the body, waits as an engine would, answers."""
    while (await receive()).get("more_body"):
        pass
    await asyncio.sleep(_SERVER_S)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(_BODY)).encode())]})
    await send({"type": "http.response.body", "body": _BODY})


async def _cost_ms(call: Callable[[], Awaitable[None]], *, concurrency: int) -> float:
    """CPU milliseconds of one call, client and server together, after one round to open the connections."""

    async def worker(num_calls: int) -> None:
        for _ in range(num_calls):
            await call()

    await asyncio.gather(*(worker(1) for _ in range(concurrency)))
    started = time.process_time()
    await asyncio.gather(*(worker(_NUM_CALLS // concurrency) for _ in range(concurrency)))
    return 1000 * (time.process_time() - started) / (_NUM_CALLS // concurrency * concurrency)


async def _measure() -> None:
    serving = await serve_port(_app)
    url = f"http://127.0.0.1:{serving.port}/"
    limits = httpx.Limits(max_connections=1024, max_keepalive_connections=1024)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1024), trust_env=False) as aiohttp_client,
        httpx.AsyncClient(limits=limits, timeout=None, trust_env=False) as httpx_client,
    ):

        async def by_aiohttp() -> None:
            async with aiohttp_client.post(url, data=_BODY) as response:
                await response.read()

        async def by_httpx() -> None:
            await httpx_client.post(url, content=_BODY)

        for concurrency in (1, 32, 256):
            for name, call in (("aiohttp", by_aiohttp), ("httpx", by_httpx)):
                cost = await _cost_ms(call, concurrency=concurrency)
                print(f"{name:8} {concurrency:4} at once   {cost:.2f} CPU-ms a call, server included")
    await serving.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_measure())
