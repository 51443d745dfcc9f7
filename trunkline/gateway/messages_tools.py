"""Tools of a Messages request: which of them the model is offered. Owns tool definitions; no content and no other key.

Tools that the client runs are offered. Two of Anthropic's own, bash and the text editor, have schemas that Claude knows by heart
and no request says; they are offered with these. All others, which Anthropic's servers would run, are not offered, and reported.
"""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

from msgspec import Struct

from trunkline.errors import MalformedRequest
from trunkline.gateway.chat_wire import tool_offer
from trunkline.gateway.json_in import read_at
from trunkline.gateway.wire import ToolOffer
from trunkline.types import ToolSpec

_KNOWN = re.compile(r"(bash|text_editor)_(\d{8})")
_INSERT_TEXT_SINCE = 20250728
_UNDO_UNTIL = 20250124


class WireTool(Struct):
    """A tool of any type; server tools may have no name."""

    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None
    input_examples: list[Any] | None = None
    allowed_callers: list[str] | None = None


class DecodedTools(NamedTuple):
    """A request's tools."""

    offer: ToolOffer
    """What the model may call."""
    not_honoured: tuple[str, ...] = ()
    """What of them is not done, in words."""


@functools.lru_cache(maxsize=256)
def decode_tools(raw: bytes) -> DecodedTools:
    """Agents send the same tools with every call, so their bytes are decoded once. Raises MalformedRequest naming the tool."""
    wires = read_at(raw, list[WireTool] | None, "tools") or ()
    specs: list[ToolSpec] = []
    missing: list[str] = []
    for place, wire in enumerate(wires):
        spec = _spec(wire, f"tools[{place}]")
        if spec is None:
            missing.append(f"a tool of type {(wire.type or '')[:64]!r}: it is not offered")
        else:
            specs.append(spec)
            missing.extend(_unkept(wire))
    return DecodedTools(tool_offer(specs), tuple(dict.fromkeys(missing)))


def _spec(wire: WireTool, where: str) -> ToolSpec | None:
    """What is offered; None for a tool that is not."""
    known = _KNOWN.fullmatch(wire.type or "")
    if wire.type not in (None, "custom") and known is None:
        return None
    if not wire.name:
        raise MalformedRequest(f"{where}.name: a tool needs a name by which the model can call it")
    if known is not None:
        return _bash(wire.name) if known[1] == "bash" else _text_editor(wire.name, int(known[2]))
    if wire.input_schema is None:
        raise MalformedRequest(f"{where}.input_schema: the tool {wire.name!r} needs a JSON schema of its input")
    return ToolSpec(wire.name, wire.description or "", wire.input_schema)


def _unkept(wire: WireTool) -> list[str]:
    """What would change answers: calls held to the schema, examples in the prompt, tools that are shown later or to other tools only."""
    asked = {
        "strict": wire.strict,
        "defer_loading": wire.defer_loading,
        "input_examples": wire.input_examples,
        "allowed_callers": wire.allowed_callers and "direct" not in wire.allowed_callers,
    }
    return [f"tools.{name}" for name, value in asked.items() if value]


def _bash(name: str) -> ToolSpec:
    properties = {
        "command": {"type": "string", "description": "The command to run"},
        "restart": {"type": "boolean", "description": "True to start the shell anew, instead of a command"},
    }
    return ToolSpec(name, "Runs commands in a shell that lives on between calls.", {"type": "object", "properties": properties})


def _text_editor(name: str, version: int) -> ToolSpec:
    """Commands and arguments as documented for each version."""
    commands = ["view", "create", "str_replace", "insert", *(["undo_edit"] if version <= _UNDO_UNTIL else [])]
    inserted = {"insert_text": {"type": "string", "description": "For insert: the text to put in"}}
    properties = {
        "command": {"type": "string", "enum": commands, "description": "What to do"},
        "path": {"type": "string", "description": "The file, or for view also a directory"},
        "file_text": {"type": "string", "description": "For create: what the file is to hold"},
        "old_str": {"type": "string", "description": "For str_replace: the text to replace; it must occur exactly once"},
        "new_str": {"type": "string", "description": "For str_replace, and for insert before insert_text: the text to put in"},
        "insert_line": {"type": "integer", "description": "For insert: the line after which to put it; 0 is the beginning"},
        **(inserted if version >= _INSERT_TEXT_SINCE else {}),
        "view_range": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "For view: first and last line, from 1; -1 is the end",
        },
    }
    schema = {"type": "object", "properties": properties, "required": ["command", "path"]}
    return ToolSpec(name, "Views, creates and edits text files.", schema)
