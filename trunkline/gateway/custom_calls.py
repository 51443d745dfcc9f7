"""Calls of custom tools, which take free text and not JSON: between a call as the model makes it and one as OpenAI's APIs say it.

The model is offered a function of one string. A call of it is answered as that string. Arguments of another form are answered as they
are, and AS_JSON at the end of the call's id says so: the client's echo is then the same call again. Owns no wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from trunkline.gateway.json_in import read_or_none
from trunkline.types import ToolCall

CUSTOM_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
"""What the model is told that a custom tool takes."""
AS_JSON = "_as_json"


class CustomCall(NamedTuple):
    """A call of a custom tool on the wire."""

    call_id: str
    """With AS_JSON at its end if the text is the arguments."""
    text: str
    """What the tool gets."""


def custom_call(call: ToolCall) -> CustomCall:
    """How a call is answered."""
    arguments = read_or_none(call.arguments)
    if isinstance(arguments, dict) and set(arguments) == {"input"} and isinstance(arguments["input"], str):
        return CustomCall(call.call_id, arguments["input"])
    return CustomCall(call.call_id + AS_JSON, call.arguments)


def read_custom_call(call_id: str, name: str, text: str) -> ToolCall:
    """The inverse: the call that an echo says."""
    if call_id.endswith(AS_JSON):
        return ToolCall(plain_id(call_id), name, text)
    return ToolCall(call_id, name, msgspec.json.encode({"input": text}).decode())


def plain_id(call_id: str) -> str:
    """The call's own id, which the results of custom tools name with what was put to its end."""
    return call_id.removesuffix(AS_JSON)
