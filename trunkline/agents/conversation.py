"""The white-box agent's conversation: ask, run tools, append, until there is an answer. Owns no transport; built-in modules only.

The same loop works in the conductor over aiohttp (tool_loop.py) and in a sandbox over urllib (loop_program.py), where each
import is paid once an attempt.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own costs an import
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any


async def converse(
    ask: Callable[[dict[str, Any]], Awaitable[dict[str, Any] | None]],
    call_tool: Callable[[str, str], Awaitable[str]],
    request: dict[str, Any],
    *,
    max_turns: int,
) -> str:
    """The final answer; '' if there is none after `max_turns` calls of the model, or once its budget is spent.

    Args:
        ask: sends a body of Chat Completions and returns the assistant's message; None if the budget is spent.
        call_tool: a tool's name and its arguments as JSON text; returns the result.
        request: the first body; its "messages" are extended in place.
        max_turns: at most this many calls of the model.
    """
    for _ in range(max_turns):
        reply = await ask(request)
        if reply is None:
            return ""
        calls = reply.get("tool_calls") or []
        if not calls:
            return reply.get("content") or ""
        request["messages"].append(reply)
        for call in calls:
            result = await call_tool(call["function"]["name"], call["function"]["arguments"])
            request["messages"].append({"role": "tool", "tool_call_id": call["id"], "content": result})
    return ""
