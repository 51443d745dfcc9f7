"""The three APIs as an agent speaks them: bodies out, answers and joined streams in. Owns no case and no target.

Written against the APIs' documents and with plain HTTP, so that a case can send what an official client would not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Called:
    """A tool call that reached the agent."""

    call_id: str
    """To be answered."""
    name: str
    """The tool."""
    arguments: str
    """JSON text."""


@dataclass(frozen=True)
class Reply:
    """An answer as an agent reads it."""

    text: str
    """What the model said."""
    calls: tuple[Called, ...]
    """Its calls, in order."""
    finish: str
    """The API's own word for why it ended."""
    echo: tuple[Mapping[str, Any], ...]
    """What a client appends to its conversation for this turn."""
    num_prompt: int | None = None
    """Prompt tokens, by the answer's usage."""
    others: tuple[Reply, ...] = ()
    """Further samples of the same request."""


@dataclass(frozen=True)
class Conversation:
    """What an agent sends: items of its API, oldest first. Immutable, so that cases can branch."""

    items: tuple[Mapping[str, Any], ...] = ()
    """Messages, or Responses' input items."""
    system: str | None = None
    """The system prompt; each API has its own place for it."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Tools of Chat Completions' shape; each API has its own."""

    def plus(self, *items: Mapping[str, Any]) -> Conversation:
        """With more items."""
        return Conversation((*self.items, *items), self.system, self.tools)


TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get",
        "description": "One fact of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "year": {"type": "integer"}}, "required": ["city"]},
    },
}
"""The one tool of the cases."""


class Wire(Protocol):
    """One API."""

    @property
    def name(self) -> str:
        """chat, responses or messages."""
        ...

    @property
    def route(self) -> str:
        """Under the base URL."""
        ...

    def headers(self, api_key: str) -> dict[str, str]:
        """As its official clients authenticate."""
        ...

    def body(self, conversation: Conversation, **knobs: Any) -> dict[str, Any]:
        """A request; `knobs` are top-level keys, and max_tokens has its own name in each API."""
        ...

    def user(self, text: str) -> dict[str, Any]:
        """A user's item."""
        ...

    def results(self, results: Sequence[tuple[str, str]]) -> tuple[dict[str, Any], ...]:
        """Tool results (call id, text) as items."""
        ...

    def read(self, body: Mapping[str, Any]) -> Reply:
        """An answer in one piece. Raises KeyError, TypeError or ValueError if it is not of the API's shape."""
        ...

    def join(self, events: Sequence[Mapping[str, Any]]) -> Reply:
        """A stream's events, joined by the API's rules. Raises as read does."""
        ...

    def error_text(self, body: Any) -> str:
        """The message of an error of this API's shape. Raises KeyError or TypeError if it has another shape."""
        ...


def sse_events(text: str) -> Iterator[dict[str, Any]]:
    """The JSON of every event but [DONE]. Raises ValueError for one that is no JSON."""
    for block in text.replace("\r\n", "\n").split("\n\n"):
        data = "\n".join(line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:"))
        if data and data != "[DONE]":
            yield json.loads(data)


@dataclass(frozen=True)
class ChatWire:
    """OpenAI Chat Completions."""

    name: str = "chat"
    """Its short name."""
    route: str = "/chat/completions"
    """Under the base URL."""

    def headers(self, api_key: str) -> dict[str, str]:
        """A bearer token."""
        return {"authorization": f"Bearer {api_key}"}

    def body(self, conversation: Conversation, **knobs: Any) -> dict[str, Any]:
        """messages, tools and the rest."""
        system = [{"role": "system", "content": conversation.system}] if conversation.system is not None else []
        tools = {"tools": list(conversation.tools)} if conversation.tools else {}
        return {"model": "any", "messages": [*system, *conversation.items], **tools, **knobs}

    def user(self, text: str) -> dict[str, Any]:
        """A user message."""
        return {"role": "user", "content": text}

    def results(self, results: Sequence[tuple[str, str]]) -> tuple[dict[str, Any], ...]:
        """A tool message each."""
        return tuple({"role": "tool", "tool_call_id": call_id, "content": text} for call_id, text in results)

    def read(self, body: Mapping[str, Any]) -> Reply:
        """Its choices."""
        num_prompt = (body.get("usage") or {}).get("prompt_tokens")
        replies = [self._choice(choice["message"], choice["finish_reason"], num_prompt) for choice in body["choices"]]
        first = replies[0]
        return Reply(first.text, first.calls, first.finish, first.echo, num_prompt, tuple(replies[1:]))

    def join(self, events: Sequence[Mapping[str, Any]]) -> Reply:
        """Deltas by choice and by call index."""
        messages: dict[int, dict[str, Any]] = {}
        finishes: dict[int, str] = {}
        num_prompt = None
        for event in events:
            if "error" in event:
                raise ValueError(f"the stream carries an error: {event['error']}")
            num_prompt = (event.get("usage") or {}).get("prompt_tokens", num_prompt)
            for choice in event.get("choices", ()):
                message = messages.setdefault(choice["index"], {"role": "assistant", "content": "", "calls": {}})
                _add_chat_delta(message, choice["delta"])
                if choice.get("finish_reason"):
                    finishes[choice["index"]] = choice["finish_reason"]
        replies = []
        for index in sorted(messages):
            joined = messages[index]
            calls = [joined["calls"][place] for place in sorted(joined["calls"])]
            message = {"role": "assistant", "content": joined["content"], **({"tool_calls": calls} if calls else {})}
            replies.append(self._choice(message, finishes[index], num_prompt))
        first = replies[0]
        return Reply(first.text, first.calls, first.finish, first.echo, num_prompt, tuple(replies[1:]))

    def error_text(self, body: Any) -> str:
        """error.message, with error.type."""
        assert isinstance(body["error"]["type"], str)
        return str(body["error"]["message"])

    def _choice(self, message: Mapping[str, Any], finish: str, num_prompt: int | None) -> Reply:
        calls = tuple(Called(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in message.get("tool_calls") or ())
        return Reply(message.get("content") or "", calls, finish, (message,), num_prompt)


def _add_chat_delta(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
    message["content"] += delta.get("content") or ""
    for part in delta.get("tool_calls") or ():
        call = message["calls"].setdefault(part["index"], {"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call["id"] = part.get("id") or call["id"]
        function = part.get("function") or {}
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""


@dataclass(frozen=True)
class ResponsesWire:
    """OpenAI Responses, with the whole conversation as input."""

    name: str = "responses"
    """Its short name."""
    route: str = "/responses"
    """Under the base URL."""

    def headers(self, api_key: str) -> dict[str, str]:
        """A bearer token."""
        return {"authorization": f"Bearer {api_key}"}

    def body(self, conversation: Conversation, **knobs: Any) -> dict[str, Any]:
        """input, instructions and flat tools."""
        if "max_tokens" in knobs:
            knobs["max_output_tokens"] = knobs.pop("max_tokens")
        instructions = {"instructions": conversation.system} if conversation.system is not None else {}
        tools = (
            {"tools": [{"type": "function", **tool["function"], "strict": False} for tool in conversation.tools]}
            if conversation.tools
            else {}
        )
        return {"model": "any", "input": list(conversation.items), "store": False, **instructions, **tools, **knobs}

    def user(self, text: str) -> dict[str, Any]:
        """A message item."""
        return {"role": "user", "content": [{"type": "input_text", "text": text}]}

    def results(self, results: Sequence[tuple[str, str]]) -> tuple[dict[str, Any], ...]:
        """A function_call_output item each."""
        return tuple({"type": "function_call_output", "call_id": call_id, "output": text} for call_id, text in results)

    def read(self, body: Mapping[str, Any]) -> Reply:
        """Its output items."""
        items = body["output"]
        parts = [part for item in items if item["type"] == "message" for part in item["content"]]
        text = "".join(part["text"] for part in parts if part["type"] == "output_text")
        calls = tuple(Called(item["call_id"], item["name"], item["arguments"]) for item in items if item["type"] == "function_call")
        return Reply(text, calls, body["status"], tuple(items), (body.get("usage") or {}).get("input_tokens"))

    def join(self, events: Sequence[Mapping[str, Any]]) -> Reply:
        """The last event holds the whole response; deltas must say the same."""
        last = next((event for event in reversed(events) if event["type"] in ("response.completed", "response.incomplete")), None)
        if last is None:
            raise ValueError(f"the stream ends without response.completed; its last event is {events[-1] if events else None}")
        whole = self.read(last["response"])
        deltas = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
        if deltas != whole.text:
            raise ValueError(f"the deltas say {deltas!r}, the completed response {whole.text!r}")
        return whole

    def error_text(self, body: Any) -> str:
        """error.message, with error.type."""
        assert isinstance(body["error"]["type"], str)
        return str(body["error"]["message"])


@dataclass(frozen=True)
class MessagesWire:
    """Anthropic Messages."""

    name: str = "messages"
    """Its short name."""
    route: str = "/messages"
    """Under the base URL."""

    def headers(self, api_key: str) -> dict[str, str]:
        """x-api-key and a version."""
        return {"x-api-key": api_key, "anthropic-version": "2023-06-01"}

    def body(self, conversation: Conversation, **knobs: Any) -> dict[str, Any]:
        """messages, system and tools with input_schema; max_tokens is obligatory."""
        system = {"system": conversation.system} if conversation.system is not None else {}
        functions = [tool["function"] for tool in conversation.tools]
        tools = {
            "tools": [{"name": one["name"], "description": one["description"], "input_schema": one["parameters"]} for one in functions]
        }
        return {"model": "any", "messages": list(conversation.items), **system, **(tools if functions else {}), "max_tokens": 1024, **knobs}

    def user(self, text: str) -> dict[str, Any]:
        """A user message of one block."""
        return {"role": "user", "content": [{"type": "text", "text": text}]}

    def results(self, results: Sequence[tuple[str, str]]) -> tuple[dict[str, Any], ...]:
        """One user message with a tool_result block each."""
        blocks = [{"type": "tool_result", "tool_use_id": call_id, "content": text} for call_id, text in results]
        return ({"role": "user", "content": blocks},)

    def read(self, body: Mapping[str, Any]) -> Reply:
        """Its content blocks."""
        blocks = body["content"]
        text = "".join(block["text"] for block in blocks if block["type"] == "text")
        calls = tuple(Called(block["id"], block["name"], json.dumps(block["input"])) for block in blocks if block["type"] == "tool_use")
        echo = {"role": "assistant", "content": list(blocks)}
        return Reply(text, calls, body["stop_reason"], (echo,), (body.get("usage") or {}).get("input_tokens"))

    def join(self, events: Sequence[Mapping[str, Any]]) -> Reply:
        """Blocks by index, from their start and deltas."""
        body: dict[str, Any] = {}
        blocks: dict[int, dict[str, Any]] = {}
        for event in events:
            match event["type"]:
                case "message_start":
                    body = dict(event["message"])
                case "content_block_start":
                    blocks[event["index"]] = {**event["content_block"], "json": ""}
                case "content_block_delta":
                    _add_block_delta(blocks[event["index"]], event["delta"])
                case "message_delta":
                    body["stop_reason"] = event["delta"]["stop_reason"]
                case "error":
                    raise ValueError(f"the stream carries an error: {event['error']}")
        if not events or events[-1]["type"] != "message_stop":
            raise ValueError(f"the stream ends without message_stop; its last event is {events[-1] if events else None}")
        whole = []
        for index in sorted(blocks):
            block = blocks[index]
            fragments = block.pop("json")
            whole.append({**block, "input": json.loads(fragments or "{}")} if block["type"] == "tool_use" else block)
        return self.read({**body, "content": whole})

    def error_text(self, body: Any) -> str:
        """type 'error' around error.type and error.message."""
        if body["type"] != "error" or not isinstance(body["error"]["type"], str):
            raise KeyError("type")
        return str(body["error"]["message"])


def _add_block_delta(block: dict[str, Any], delta: Mapping[str, Any]) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] = block.get("thinking", "") + delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "input_json_delta":
            block["json"] += delta["partial_json"]


CHAT, RESPONSES, MESSAGES = ChatWire(), ResponsesWire(), MessagesWire()
WIRES: tuple[Wire, ...] = (CHAT, RESPONSES, MESSAGES)
