"""Messages and tools as OpenAI's Chat Completions writes them. Owns no HTTP and no answer."""

from __future__ import annotations

from typing import Any

from trunkline.types import Message, ToolSpec


def wire_message(message: Message) -> dict[str, Any]:
    """A turn of a request's `messages`."""
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        wire["tool_calls"] = [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return wire


def wire_tool(spec: ToolSpec) -> dict[str, Any]:
    """One of a request's `tools`."""
    return {"type": "function", "function": {"name": spec.name, "description": spec.description, "parameters": dict(spec.parameters)}}
