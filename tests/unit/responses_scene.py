"""Requests and answers of the Responses API for its tests: decoded, answered, echoed."""

import json

import msgspec
import pytest

from trunkline.errors import MalformedRequest
from trunkline.gateway.responses_wire import ResponsesWire
from trunkline.gateway.wire import Answer, Committed
from trunkline.types import Completion, Generation, PolicyVersion, SamplingParams, ToolCall, VersionSpan

WIRE = ResponsesWire()
HELLO = [{"role": "user", "content": "hello"}]
FUNCTION = {"type": "function", "name": "get", "description": "One fact", "parameters": {"type": "object", "properties": {}}}
CUSTOM = {"type": "custom", "name": "apply", "description": "Free text"}
NAMESPACE = {"type": "namespace", "name": "crm", "description": "Customers", "tools": [FUNCTION, CUSTOM]}
SEARCH = {"type": "tool_search", "execution": "client", "description": "Finds tools", "parameters": {"type": "object"}}
OWN_TOOLS = [{"type": "local_shell"}, {"type": "shell"}, {"type": "apply_patch"}, SEARCH]
ALL_TOOLS = [FUNCTION, CUSTOM, NAMESPACE, *OWN_TOOLS]


def no_past(completion_id):
    return None


def decode(past=no_past, **body):
    return WIRE.decode(json.dumps({"model": "any", "input": HELLO, **body}).encode(), past)


def ask(*items, past=no_past, **body):
    return decode(past, input=list(items), **body).ask


def told(*items, **options):
    return ask(*items, **options).messages


def answer_of(message, *, completion_id="s0a.1", finish="stop", token_ids=None, text=None):
    """The answer to a call that sampled `message`, a token a character."""
    ids = token_ids or tuple(range(len(message.content) + 1))
    generation = Generation(ids, tuple(-0.5 * token for token in ids), finish, (VersionSpan(0, len(ids), PolicyVersion(1, 0)),))
    completion = Completion(completion_id, "s0a", (1, 2, 3), generation, SamplingParams(64), 0, 1)
    return Answer((Committed(completion, message, ()),), "tiny", 1_700_000_000, text or (lambda some: "?" * len(some)))


def answered(message, request=None, **options):
    return json.loads((request or decode(tools=ALL_TOOLS)).body(answer_of(message, **options)))


def events_of(message, request=None, **options):
    """Pairs of the event's name and its data."""
    frames = list((request or decode(tools=ALL_TOOLS)).events(answer_of(message, **options)))
    pairs = [frame.decode().removesuffix("\n\n").split("\n") for frame in frames]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]


def refused(body, past=no_past):
    with pytest.raises(MalformedRequest) as caught:
        WIRE.decode(body if isinstance(body, bytes) else json.dumps(body).encode(), past)
    return str(caught.value)


def call(arguments, name="get", call_id="call_1_0"):
    return ToolCall(call_id, name, arguments)


def canonical(message):
    """Calls by their parsed arguments, as the record compares them."""
    calls = tuple((one.call_id, one.name, msgspec.json.decode(one.arguments)) for one in message.tool_calls)
    return message.role, message.content, message.reasoning, calls
