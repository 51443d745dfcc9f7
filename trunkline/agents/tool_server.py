"""The tools of one attempt over plain HTTP on loopback, for agents that are programs. Owns no tool and no attempt.

GET /tools              {"tools": [OpenAI's function tools]}
POST /tools/NAME        the call's arguments as JSON  ->  {"result": "..."}

Every request carries the attempt's key as `Authorization: Bearer KEY`, else it is answered 401.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from trunkline.agents.openai_shape import wire_tool
from trunkline.protocols import Tools

MAX_ARGUMENTS_BYTES = 2**20
"""A larger body is answered 413."""

_END_WAIT_S = 0.5
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class ToolDoor:
    """Where an attempt's tools are, and what opens them."""

    url: str
    """Such as http://127.0.0.1:40123/tools; a tool's name follows after a slash."""
    key: str
    """Secret of this attempt."""


@asynccontextmanager
async def serve_tools(tools: Tools) -> AsyncIterator[ToolDoor]:
    """Serves them for the length of the block; calls that are still running at its end are cut off."""
    key = secrets.token_urlsafe(32)

    @web.middleware
    async def with_key(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not secrets.compare_digest(given.encode(), key.encode()):
            return web.json_response({"error": "send this attempt's tools_key as 'Authorization: Bearer KEY'"}, status=401)
        return await handler(request)

    async def listed(request: web.Request) -> web.Response:
        return web.json_response({"tools": [wire_tool(spec) for spec in tools.specs]})

    async def called(request: web.Request) -> web.Response:
        # The text goes on as the agent wrote it: what is wrong with it, the tool says in its own words.
        arguments = (await request.read()).decode(errors="replace")
        return web.json_response({"result": await tools.call(request.match_info["name"], arguments)})

    app = web.Application(middlewares=[with_key], client_max_size=MAX_ARGUMENTS_BYTES)
    app.add_routes([web.get("/tools", listed), web.post("/tools/{name:.*}", called)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_END_WAIT_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield ToolDoor(f"http://127.0.0.1:{runner.addresses[0][1]}/tools", key)
    finally:
        await runner.cleanup()
