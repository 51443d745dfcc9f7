"""OpenAI's Responses: a call of the model as an output item, and the item's echo as that call again. Owns no tool and no message.

A call comes back from its echo as it was written, whatever kind of item it was:

    function                    function_call, with the arguments as sampled
    custom                      custom_tool_call (custom_calls.py)
    local_shell, shell, apply_patch, tool_search
                                the item of that tool, if its arguments fit it and come back from it; else function_call

Ids of items name the completion, so that an item is known again, by its id alone: PREFIX_COMPLETION, of a call PREFIX_COMPLETION_PLACE.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from trunkline.errors import MalformedRequest
from trunkline.gateway.custom_calls import custom_call, read_custom_call
from trunkline.gateway.json_in import read_or_none
from trunkline.types import ToolCall

_T = TypeVar("_T", str, dict[str, Any])
_JSON_NAMES = {str: "a string", dict: "an object"}

Kind = Literal["function", "custom", "local_shell", "shell", "apply_patch", "tool_search"]
Status = Literal["in_progress", "completed", "incomplete"]

_ITEM_ID = re.compile(r"(?:rs|msg|fc|ctc|lsh|sh|apc|tsc)_(?P<completion>[^_.]+\.\d+)(?:_(?P<place>\d{1,6}))?\Z")
"""Completion ids hold a dot, which OpenAI's own ids do not."""
_PLAIN_NAMESPACE = "functions"
"""OpenAI's own formats have all functions in it, so its tools go by their plain names."""
_encoder = msgspec.json.Encoder(order="sorted")


class CallForm(NamedTuple):
    """How the client knows a tool that the model was offered."""

    kind: Kind = "function"
    """Which item its calls are."""
    name: str | None = None
    """Its name, if another than the model's."""
    namespace: str | None = None
    """The group that it was offered in."""


class ItemId(NamedTuple):
    """What an item's id says."""

    completion_id: str
    """The answer that it was part of."""
    place: int | None
    """Of a call: which of the answer's calls."""


class FunctionCallItem(Struct, tag="function_call", tag_field="type"):
    """A call of a function."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: Status = "completed"
    namespace: str | UnsetType = UNSET


class CustomCallItem(Struct, tag="custom_tool_call", tag_field="type"):
    """A call of a tool that takes free text."""

    id: str
    call_id: str
    name: str
    input: str
    status: Status = "completed"
    namespace: str | UnsetType = UNSET


class LocalShellCallItem(Struct, tag="local_shell_call", tag_field="type"):
    """A command for the client's shell."""

    id: str
    call_id: str
    action: dict[str, Any]
    status: Status = "completed"


class ShellCallItem(Struct, tag="shell_call", tag_field="type"):
    """Commands for a shell."""

    id: str
    call_id: str
    action: dict[str, Any]
    status: Status = "completed"


class ApplyPatchCallItem(Struct, tag="apply_patch_call", tag_field="type"):
    """A change of one file."""

    id: str
    call_id: str
    operation: dict[str, Any]
    status: Status = "completed"


class ToolSearchCallItem(Struct, tag="tool_search_call", tag_field="type"):
    """A search for further tools, which the client does."""

    id: str
    call_id: str
    arguments: dict[str, Any]
    status: Status = "completed"
    execution: Literal["client"] = "client"


CallItem = FunctionCallItem | CustomCallItem | LocalShellCallItem | ShellCallItem | ApplyPatchCallItem | ToolSearchCallItem


class _LocalShellAction(Struct, forbid_unknown_fields=True):
    type: Literal["exec"]
    command: list[str]
    env: dict[str, str]
    timeout_ms: int | None = None
    user: str | None = None
    working_directory: str | None = None


class _ShellAction(Struct, forbid_unknown_fields=True):
    commands: list[str]
    timeout_ms: int | None = None
    max_output_length: int | None = None


class _CreateFile(Struct, tag="create_file", tag_field="type", forbid_unknown_fields=True):
    path: str
    diff: str


class _UpdateFile(_CreateFile, tag="update_file", tag_field="type", forbid_unknown_fields=True):
    pass


class _DeleteFile(Struct, tag="delete_file", tag_field="type", forbid_unknown_fields=True):
    path: str


class WireCallItem(Struct):
    """An item of a request that is a call of any kind."""

    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | dict[str, Any] | None = None
    input: str | None = None
    action: dict[str, Any] | None = None
    operation: dict[str, Any] | None = None


def flat_name(name: str, namespace: str | None) -> str:
    """What the model is told that a tool in a namespace is called."""
    if not namespace or namespace == _PLAIN_NAMESPACE:
        return name
    return namespace + name if namespace.endswith("__") else f"{namespace}__{name}"


def item_id(wire_id: str | None) -> ItemId | None:
    """What an id of ours says; None for another's."""
    found = _ITEM_ID.match(wire_id or "")
    return ItemId(found["completion"], int(found["place"]) if found["place"] else None) if found else None


def call_item(call: ToolCall, form: CallForm, completion_id: str, place: int) -> CallItem:
    """The item that answers a call; `place` counts the calls of its answer."""
    name, namespace, end = form.name or call.name, form.namespace or UNSET, f"{completion_id}_{place}"
    arguments = read_or_none(call.arguments)
    match form.kind:
        case "custom":
            call_id, text = custom_call(call)
            return CustomCallItem(f"ctc_{end}", call_id, name, text, namespace=namespace)
        case "local_shell" if isinstance(arguments, dict):
            action = {"type": "exec", "env": {}, **arguments}
            if _fits(action, _LocalShellAction) and _comes_back(_local_shell_arguments(action), arguments):
                return LocalShellCallItem(f"lsh_{end}", call.call_id, action)
        case "shell" if isinstance(arguments, dict):
            if _fits(arguments, _ShellAction) and _comes_back(_without_nulls(arguments), arguments):
                return ShellCallItem(f"sh_{end}", call.call_id, arguments)
        case "apply_patch" if isinstance(arguments, dict):
            if _fits(arguments, _CreateFile | _UpdateFile | _DeleteFile) and _comes_back(_without_nulls(arguments), arguments):
                return ApplyPatchCallItem(f"apc_{end}", call.call_id, arguments)
        case "tool_search" if isinstance(arguments, dict):
            return ToolSearchCallItem(f"tsc_{end}", call.call_id, arguments)
    return FunctionCallItem(f"fc_{end}", call.call_id, name, call.arguments, namespace=namespace)


def read_call(item: WireCallItem, kind: str, where: str) -> ToolCall:
    """The call that an item says. Raises MalformedRequest if it lacks what its type needs."""

    def need(key: str, form: type[_T]) -> _T:
        value = getattr(item, key)
        if not isinstance(value, form):
            raise MalformedRequest(f"{where}.{key}: a {kind} needs it, as {_JSON_NAMES[form]}")
        return value

    call_id = item.id if kind == "local_shell_call" and item.id and not item.call_id else need("call_id", str)
    match kind:
        case "function_call":
            return ToolCall(call_id, flat_name(need("name", str), item.namespace), need("arguments", str))
        case "custom_tool_call":
            return read_custom_call(call_id, flat_name(need("name", str), item.namespace), need("input", str))
        case _:
            tool, key, arguments = _OWN_ITEMS[kind]
            return ToolCall(call_id, tool, _written(arguments(need(key, dict))))


def is_call(kind: str) -> bool:
    """An item of this type is a call."""
    return kind in ("function_call", "custom_tool_call") or kind in _OWN_ITEMS


def _local_shell_arguments(action: Mapping[str, Any]) -> dict[str, Any]:
    """The type is always the same, and an empty environment means none."""
    return {key: value for key, value in _without_nulls(action).items() if key != "type" and not (key == "env" and value == {})}


def _without_nulls(action: Mapping[str, Any]) -> dict[str, Any]:
    """Clients write keys that are not set as null."""
    return {key: value for key, value in action.items() if value is not None}


_OWN_ITEMS: dict[str, tuple[str, str, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "local_shell_call": ("local_shell", "action", _local_shell_arguments),
    "shell_call": ("shell", "action", _without_nulls),
    "apply_patch_call": ("apply_patch", "operation", _without_nulls),
    "tool_search_call": ("tool_search", "arguments", dict),
}
"""By item type: the tool, the key that holds the arguments, and the arguments of its value."""


def _written(arguments: Mapping[str, Any]) -> str:
    return msgspec.json.encode(arguments).decode()


def _fits(arguments: Mapping[str, Any], form: Any) -> bool:
    try:
        msgspec.convert(arguments, form)
    except msgspec.ValidationError:
        return False
    return True


def _comes_back(echoed: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    return _encoder.encode(echoed) == _encoder.encode(arguments)
