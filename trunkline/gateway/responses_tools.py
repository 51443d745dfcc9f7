"""OpenAI's Responses: the tools of a request, as the model is offered them. Owns no call (responses_calls.py).

function, custom, namespace            offered; a custom tool as a function of one string. A grammar is told and not enforced;
                                       `strict` is not enforced either
local_shell, shell, apply_patch        the client runs them: offered as functions of the arguments that their items hold
everything else                        runs at OpenAI's: not offered, and said to be
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import Raw, Struct

from trunkline.errors import MalformedRequest
from trunkline.gateway.chat_wire import tool_offer
from trunkline.gateway.custom_calls import CUSTOM_PARAMETERS
from trunkline.gateway.json_in import read_at
from trunkline.gateway.responses_calls import CallForm, flat_name
from trunkline.gateway.wire import ToolOffer
from trunkline.types import ToolSpec

_STRINGS = {"type": "array", "items": {"type": "string"}}
_OWN_SPECS = {
    "local_shell": ToolSpec(
        "local_shell",
        "Runs a command on the local machine.",
        {
            "type": "object",
            "properties": {
                "command": {**_STRINGS, "description": "The program and its arguments."},
                "working_directory": {"type": "string"},
                "timeout_ms": {"type": "integer"},
            },
            "required": ["command"],
        },
    ),
    "shell": ToolSpec(
        "shell",
        "Runs shell commands, one after another.",
        {
            "type": "object",
            "properties": {"commands": _STRINGS, "timeout_ms": {"type": "integer"}, "max_output_length": {"type": "integer"}},
            "required": ["commands"],
        },
    ),
    "apply_patch": ToolSpec(
        "apply_patch",
        "Creates, updates or deletes a file.",
        {
            "type": "object",
            "properties": {
                "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
                "path": {"type": "string"},
                "diff": {"type": "string", "description": "The change in the V4A diff format; none to delete a file."},
            },
            "required": ["type", "path"],
        },
    ),
}


class WireFormat(Struct):
    """What the input of a custom tool looks like."""

    syntax: str = ""
    definition: str = ""


class WireTool(Struct):
    """A tool of a request, of any type."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    format: WireFormat | None = None
    execution: str | None = None
    tools: list[WireTool] | None = None


@dataclass(frozen=True)
class OfferedTools:
    """What a request's `tools` come to."""

    offer: ToolOffer
    """What the model may call."""
    forms: Mapping[str, CallForm]
    """By the name that the model knows: how its calls are answered."""
    echoed: tuple[Raw, ...]
    """Those that are offered, as they were sent."""
    not_honoured: tuple[str, ...]
    """Of those that are not."""


@functools.lru_cache(maxsize=256)
def offered_tools(lists: tuple[bytes, ...]) -> OfferedTools:
    """What lists of tools come to together; of tools of one name in several lists the latest counts. Raises MalformedRequest.

    Agents send the same tools with every call, so their bytes are decoded once.
    """
    specs: dict[str, ToolSpec] = {}
    forms: dict[str, CallForm] = {}
    echoed, not_honoured = [], []
    for raw in lists:
        here: list[ToolSpec] = []
        for place, one in enumerate(read_at(raw, list[Raw] | None, "tools") or ()):
            tool = read_at(one, WireTool, f"tools[{place}]")
            found = list(_found(tool, f"tools[{place}]"))
            if found:
                echoed.append(one)
            else:
                not_honoured.append(f"a tool of type {tool.type!r}: it is not offered"[:200])
            here += [spec for spec, _ in found]
            forms |= {spec.name: form for spec, form in found}
        specs |= {spec.name: spec for spec in tool_offer(here).specs}
    return OfferedTools(tool_offer(list(specs.values())), forms, tuple(echoed), tuple(dict.fromkeys(not_honoured)))


def _found(tool: WireTool, where: str, namespace: str | None = None) -> Iterator[tuple[ToolSpec, CallForm]]:
    """What the model is offered of one entry, and how calls of it are answered."""
    if tool.type in ("function", "custom"):
        if not tool.name:
            raise MalformedRequest(f"{where}: a {tool.type} tool needs a name")
        name = flat_name(tool.name, namespace)
        renamed = (tool.name, namespace) if namespace else (None, None)
        if tool.type == "custom":
            yield ToolSpec(name, _with_grammar(tool), CUSTOM_PARAMETERS), CallForm("custom", *renamed)
        else:
            yield ToolSpec(name, tool.description or "", tool.parameters or {}), CallForm("function", *renamed)
    elif tool.type == "namespace" and namespace is None:
        if not tool.name:
            raise MalformedRequest(f"{where}: a namespace needs a name")
        for place, inner in enumerate(tool.tools or ()):
            yield from _found(inner, f"{where}.tools[{place}]", tool.name)
    elif tool.type == "local_shell":
        yield _OWN_SPECS[tool.type], CallForm("local_shell")
    elif tool.type == "shell":
        yield _OWN_SPECS[tool.type], CallForm("shell")
    elif tool.type == "apply_patch":
        yield _OWN_SPECS[tool.type], CallForm("apply_patch")
    elif tool.type == "tool_search" and tool.execution == "client":
        yield ToolSpec("tool_search", tool.description or "Finds further tools.", tool.parameters or {}), CallForm("tool_search")


def _with_grammar(tool: WireTool) -> str:
    """A custom tool's description; often only its grammar says what its input looks like."""
    description = tool.description or ""
    if tool.format is None or not tool.format.definition:
        return description
    return f"{description}\n\nThe input follows this {tool.format.syntax} grammar:\n{tool.format.definition}".lstrip()
