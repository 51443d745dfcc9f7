"""One agent's conversation by each wire API: request bodies out, answers in. Owns no HTTP and no clock."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import msgspec

from trunkline.bench.gateway.material import SYSTEM, TOOLS, chat_tools

_COMPLETION_ID = re.compile(rb"s[0-9a-f]{16}\.\d+")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Talk(Protocol):
    """A conversation. `ChatTalk("Fix it")` is the smallest."""

    path: str

    def body(self) -> bytes:
        """The next request."""
        ...

    def hear(self, answer: bytes, result: Callable[[], str]) -> None:
        """Takes an answer in, and appends what the agent says next: `result()` for every call."""
        ...


class ChatTalk:
    """Chat Completions, as one JSON object."""

    path = "/v1/chat/completions"
    _keys: ClassVar[dict[str, Any]] = {}

    def __init__(self, task: str) -> None:
        self._messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task}]
        self._tools = chat_tools()

    def body(self) -> bytes:
        """All of it, as clients send it."""
        return _encode({"model": "bench", "messages": self._messages, "tools": self._tools, **self._keys})

    def hear(self, answer: bytes, result: Callable[[], str]) -> None:
        """The message, then a result for each of its calls."""
        message = self._message(answer)
        self._messages.append(message)
        calls = message.get("tool_calls") or ()
        self._messages += [{"role": "tool", "tool_call_id": call["id"], "content": result()} for call in calls]
        if not calls:
            self._messages.append({"role": "user", "content": result()})

    def _message(self, answer: bytes) -> dict[str, Any]:
        message: dict[str, Any] = _decode(answer)["choices"][0]["message"]
        return message


class StreamedChatTalk(ChatTalk):
    """Chat Completions as server-sent events."""

    _keys: ClassVar[dict[str, Any]] = {"stream": True}

    def _message(self, answer: bytes) -> dict[str, Any]:
        content = ""
        calls: dict[int, Any] = {}
        for line in answer.split(b"\n"):
            if not line.startswith(b"data: {"):
                continue
            for choice in _decode(line[6:])["choices"]:
                delta = choice["delta"]
                content += delta.get("content") or ""
                for piece in delta.get("tool_calls", ()):
                    call = calls.setdefault(piece["index"], {"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
                    call["id"] += piece.get("id", "")
                    for key, value in piece["function"].items():
                        call["function"][key] += value
        return {"role": "assistant", "content": content, **({"tool_calls": list(calls.values())} if calls else {})}


class MessagesTalk:
    """Anthropic Messages."""

    path = "/v1/messages"

    def __init__(self, task: str) -> None:
        self._messages: list[dict[str, Any]] = [{"role": "user", "content": task}]
        self._tools = [{"name": tool.name, "description": tool.description, "input_schema": tool.parameters} for tool in TOOLS]

    def body(self) -> bytes:
        """All of it, as clients send it."""
        return _encode({"model": "bench", "max_tokens": 1024, "system": SYSTEM, "messages": self._messages, "tools": self._tools})

    def hear(self, answer: bytes, result: Callable[[], str]) -> None:
        """The blocks, then a result for each use of a tool."""
        blocks = _decode(answer)["content"]
        uses = [block for block in blocks if block["type"] == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": use["id"], "content": result()} for use in uses]
        self._messages += [{"role": "assistant", "content": blocks}, {"role": "user", "content": results or result()}]


class ResponsesTalk:
    """OpenAI Responses, all items with every request."""

    path = "/v1/responses"

    def __init__(self, task: str) -> None:
        self._items: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task}]
        self._tools = [
            {"type": "function", "name": tool.name, "description": tool.description, "parameters": tool.parameters, "strict": False}
            for tool in TOOLS
        ]

    def body(self) -> bytes:
        """All of it."""
        return _encode({"model": "bench", "input": self._items, "tools": self._tools, "store": False})

    def hear(self, answer: bytes, result: Callable[[], str]) -> None:
        """The items, then an output for each call."""
        items = _decode(answer)["output"]
        calls = [item for item in items if item["type"] == "function_call"]
        outputs = [{"type": "function_call_output", "call_id": call["call_id"], "output": result()} for call in calls]
        self._items += [*items, *(outputs or [{"role": "user", "content": result()}])]


WIRES: dict[str, type[ChatTalk] | type[MessagesTalk] | type[ResponsesTalk]] = {
    "chat": ChatTalk,
    "chat, streamed": StreamedChatTalk,
    "messages": MessagesTalk,
    "responses": ResponsesTalk,
}
"""By name."""


def completion_id(answer: bytes) -> str:
    """The record's name of an answer, which every wire's ids hold."""
    found = _COMPLETION_ID.search(answer)
    assert found is not None, f"an answer without an id: {answer[:500]!r}"
    return found.group().decode()
