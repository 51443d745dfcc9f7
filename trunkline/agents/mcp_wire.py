"""One attempt's tools as MCP's streamable HTTP, by the official library. Owns no key, no address and no tool.

Importing this module takes a second of CPU, nearly all of it the library's: tool_server.py does so when an agent first asks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams, TextContent, Tool
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from trunkline.types import ToolSpec

# The attempt's key is the guard, and a door inside a sandbox has an address of its own: Host and Origin prove nothing here.
_SECURITY = TransportSecuritySettings(enable_dns_rebinding_protection=False)
_TEXT = "text"


def build_mcp(specs: Sequence[ToolSpec], call: Callable[[str, str], Awaitable[str]], *, max_body_bytes: int) -> ASGIApp:
    """An app without sessions that answers each POST with JSON; `call` takes a tool's name and its arguments as JSON text."""

    async def listed(ctx: ServerRequestContext[Any], params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(
            tools=[Tool(name=spec.name, description=spec.description, input_schema=dict(spec.parameters)) for spec in specs]
        )

    async def called(ctx: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        text = await call(params.name, params.arguments[_TEXT] if params.arguments else "{}")
        return CallToolResult(content=[TextContent(text=_encodable(text))])

    # No schema is looked up before a call: what is wrong with its arguments, the tool says in its own words.
    server = Server("trunkline", on_list_tools=listed, on_call_tool=called, get_tool_input_schema=lambda name: None)
    server.middleware = [_arguments_as_text]

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        # A manager for each request, which without sessions shares nothing with another: it begins and ends, or is cut off, with it.
        manager = StreamableHTTPSessionManager(
            server, json_response=True, stateless=True, security_settings=_SECURITY, max_request_body_size=max_body_bytes
        )
        try:
            async with manager.run():
                await manager.handle_request(scope, receive, send)
        except* ClientDisconnect:  # it left before its request was whole; nobody reads an answer
            pass

    return answer


async def _arguments_as_text(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Hides a call's arguments from the library's checks, which refuse what is no JSON object before the tool sees it."""
    if ctx.method == "tools/call" and ctx.params is not None and "arguments" in ctx.params:
        text = _encodable(json.dumps(ctx.params["arguments"], ensure_ascii=False))
        ctx = dataclasses.replace(ctx, params={**ctx.params, "arguments": {_TEXT: text}})
    return await call_next(ctx)


def _encodable(text: str) -> str:
    """JSON can write half a surrogate pair, UTF-8 cannot."""
    return text.encode(errors="replace").decode()
