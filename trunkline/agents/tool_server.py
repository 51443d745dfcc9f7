"""The tools of one attempt over HTTP and MCP, for agents that are programs. Owns no tool, no attempt and no words of MCP.

GET /tools              {"tools": [OpenAI's function tools]}
POST /tools/NAME        the call's arguments as JSON  ->  {"result": "..."}
POST /mcp               MCP's streamable HTTP, without sessions (mcp_wire.py)

Every request carries the attempt's key as `Authorization: Bearer KEY`, else it is answered 401.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from trunkline.agents.openai_shape import wire_tool
from trunkline.asgi import serve_port, serve_uds
from trunkline.protocols import Tools
from trunkline.types import ToolUse, ToolWire

MAX_ARGUMENTS_BYTES = 2**20
"""A larger body is answered 413."""

_END_WAIT_S = 0.5
_SOCKET_MODE = 0o666  # whoever runs inside a sandbox is another user; the key is the guard


@dataclass(frozen=True)
class ToolDoor:
    """Where an attempt's tools are, and what opens them."""

    key: str
    """Secret of this attempt."""
    base_url: str
    """Such as http://127.0.0.1:40123, as the agent sees it."""

    @property
    def url(self) -> str:
        """Of plain HTTP; a tool's name follows after a slash."""
        return f"{self.base_url}/tools"

    @property
    def mcp_url(self) -> str:
        """Of MCP's streamable HTTP."""
        return f"{self.base_url}/mcp"


@asynccontextmanager
async def serve_tools(
    tools: Tools,
    *,
    socket: Path | None = None,
    base_url: str | None = None,
    on_call: Callable[[ToolUse], None] | None = None,
) -> AsyncIterator[ToolDoor]:
    """Serves them for the length of the block, on a free port of loopback; calls that still run at its end are cut off.

    With `socket` they are served on that Unix socket instead, which any user of this host may open, and `base_url` says
    where the agent finds it. `on_call` is told each call that the tools answered, as it ends and before the agent is told.
    """
    assert (socket is None) == (base_url is None), "a socket is found at a base_url, a port makes its own"
    key = secrets.token_urlsafe(32)
    app = _Guard(_build_app(tools, on_call), key)
    async with AsyncExitStack() as stack:
        serving = await (serve_port(app) if socket is None else serve_uds(app, socket, mode=_SOCKET_MODE))
        stack.push_async_callback(serving.stop)
        stack.push_async_callback(app.end)
        yield ToolDoor(key, base_url or f"http://127.0.0.1:{serving.port}")


def _build_app(tools: Tools, on_call: Callable[[ToolUse], None] | None) -> ASGIApp:
    """Both wires, not yet guarded."""

    async def call(wire: ToolWire, name: str, arguments: str) -> str:
        result = await tools.call(name, arguments)
        if on_call is not None:
            on_call(ToolUse(name, arguments, result, wire))
        return result

    async def listed(request: Request) -> Response:
        return _json({"tools": [wire_tool(spec) for spec in tools.specs]})

    async def called(request: Request) -> Response:
        # The text goes on as the agent wrote it: what is wrong with it, the tool says in its own words.
        arguments = (await _body(request)).decode(errors="replace")
        return _json({"result": await call("http", request.path_params["name"], arguments)})

    def build_mcp() -> ASGIApp:
        from trunkline.agents import mcp_wire

        return mcp_wire.build_mcp(tools.specs, partial(call, "mcp"), max_body_bytes=MAX_ARGUMENTS_BYTES)

    routes = [
        Route("/tools", listed, methods=["GET"]),
        Route("/tools/{name:path}", called, methods=["POST"]),
        Route("/mcp", _Lazy(build_mcp), methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={ClientDisconnect: _gone})


class _Lazy:
    """An app that is built when it is first asked, in a thread, so that an import of a second holds up no other attempt."""

    def __init__(self, build: Callable[[], ASGIApp]) -> None:
        self._build = build
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            self._app = await asyncio.to_thread(self._build)
        await self._app(scope, receive, send)


class _Guard:
    """Lets in who has the key, until the end; then cuts off what still runs."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()
        self._requests: set[asyncio.Task[None]] = set()
        self._is_over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get("authorization", "").removeprefix("Bearer ").strip()
        if not secrets.compare_digest(given.encode(), self._key):
            refusal = _json({"error": "send this attempt's tools_key as 'Authorization: Bearer KEY'"}, status=401)
            await refusal(scope, receive, send)
        elif self._is_over or not await self._runs_to_its_end(scope, receive, send):
            await _json({"error": "this attempt is over"}, status=503)(scope, receive, send)

    async def _runs_to_its_end(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """False if it was cut off."""
        # A task of its own can be cut off without the server's, which then still answers.
        request = asyncio.ensure_future(self._app(scope, receive, send))
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)
        await asyncio.wait({request})
        if request.cancelled():
            return False
        request.result()  # raises what it raised
        return True

    async def end(self) -> None:
        """Lets in no further request, waits a moment for those that run, then cuts them off."""
        self._is_over = True
        try:
            if self._requests:
                await asyncio.wait(self._requests, timeout=_END_WAIT_S)
        finally:
            for request in self._requests:
                request.cancel()
        if self._requests:
            await asyncio.wait(self._requests)


async def _gone(request: Request, error: Exception) -> Response:
    """The client left before its request was whole; nobody reads this."""
    return Response(status_code=499)


async def _body(request: Request) -> bytes:
    """Answers 413 beyond MAX_ARGUMENTS_BYTES, before it is all in memory."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_ARGUMENTS_BYTES:
            raise HTTPException(413, f"the arguments may have {MAX_ARGUMENTS_BYTES} bytes; send less")
    return bytes(body)


def _json(content: dict[str, Any], *, status: int = 200) -> Response:
    # Not starlette's JSONResponse: a tool's text may hold half a surrogate pair, which only escaped JSON can carry.
    return Response(json.dumps(content), status_code=status, media_type="application/json")
