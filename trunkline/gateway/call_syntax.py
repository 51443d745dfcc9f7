"""How tools and calls are written as tokens and read back: by marks, or by lines of text. Owns no turns and no roles.

Both syntaxes write arguments by position, in the order of the schema's `properties`; string values raw, others as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from trunkline.errors import ConfigError, MalformedRequest
from trunkline.models.tokenizer import Tokenizer
from trunkline.types import ToolCall, ToolSpec

MAX_SPEC_TOKENS = 12
"""A marked tool costs at most this many tokens: it is repeated in every context of a small model."""

_NOT_RAW = frozenset(',()"\n')
_JSON = json.JSONDecoder()


@dataclass(frozen=True)
class Turn:
    """What an assistant turn says."""

    content: str
    """Text before the calls."""
    calls: tuple[ToolCall, ...]
    """Its calls, in order; call_id '' throughout."""


class CallSyntax(Protocol):
    """One way to write tools and calls. `LineCalls()` needs no special token."""

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Tokens that the vocabulary must have as single ones."""
        ...

    def write_tools(self, tokenizer: Tokenizer, tools: Sequence[ToolSpec]) -> list[int]:
        """What the system turn says of the tools. Raises ConfigError for a tool it cannot offer."""
        ...

    def write_turn(self, tokenizer: Tokenizer, turn: Turn, tools: Sequence[ToolSpec]) -> list[int]:
        """An assistant turn's body, without its end."""
        ...

    def read_turn(self, tokenizer: Tokenizer, ids: Sequence[int], tools: Sequence[ToolSpec]) -> Turn | None:
        """The inverse of write_turn; None if a call is malformed."""
        ...


@dataclass(frozen=True)
class MarkedCalls:
    """Calls by special tokens: <|call|> name (<|arg|> value)*; a tool is <|spec|> name argument-names, one piece each."""

    call: str = "<|call|>"
    """Opens a call."""
    arg: str = "<|arg|>"
    """Opens a value."""
    spec: str = "<|spec|>"
    """Opens a tool in the system turn."""

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Call, argument and tool marks."""
        return (self.call, self.arg, self.spec)

    def write_tools(self, tokenizer: Tokenizer, tools: Sequence[ToolSpec]) -> list[int]:
        """Raises ConfigError for a name that is not one token and for a tool of more than MAX_SPEC_TOKENS."""
        ids: list[int] = []
        for tool in tools:
            written = [tokenizer.token_id(self.spec), *(tokenizer.token_id(piece) for piece in (tool.name, *_argument_names(tool)))]
            if len(written) > MAX_SPEC_TOKENS:
                raise ConfigError(f"tool {tool.name!r} takes {len(written)} tokens, at most {MAX_SPEC_TOKENS} fit; give it fewer arguments")
            ids += written
        return ids

    def write_turn(self, tokenizer: Tokenizer, turn: Turn, tools: Sequence[ToolSpec]) -> list[int]:
        """Text, then the marked calls."""
        call_id, arg_id = tokenizer.token_id(self.call), tokenizer.token_id(self.arg)
        ids = tokenizer.encode(turn.content) if turn.content else []
        for call in turn.calls:
            ids += [call_id, *tokenizer.encode(call.name)]
            for value in _positional(call, tools):
                ids += [arg_id, *tokenizer.encode(value if isinstance(value, str) else _json_text(value))]
        return ids

    def read_turn(self, tokenizer: Tokenizer, ids: Sequence[int], tools: Sequence[ToolSpec]) -> Turn | None:
        """None if a mark is out of place, a tool unknown, or the number or type of values wrong."""
        text, *blocks = _split(ids, tokenizer.token_id(self.call))
        marks = {tokenizer.token_id(mark) for mark in self.special_tokens}
        if blocks and not marks.isdisjoint(text):
            return None
        calls = []
        for block in blocks:
            pieces = _split(block, tokenizer.token_id(self.arg))
            if any(not marks.isdisjoint(piece) for piece in pieces):
                return None
            name, *values = (tokenizer.decode(piece) for piece in pieces)
            call = _call_from_texts(name, values, tools)
            if call is None:
                return None
            calls.append(call)
        return Turn(tokenizer.decode(text) if text else "", tuple(calls))


@dataclass(frozen=True)
class LineCalls:
    """Calls as the last lines of the text, for models without marks: `call: population(Peru)`.

    A string that holds one of ,()" or a line break, is empty, or has outer blanks is written as JSON.
    """

    prefix: str = "call: "
    """Opens a call's line."""

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """None."""
        return ()

    def write_tools(self, tokenizer: Tokenizer, tools: Sequence[ToolSpec]) -> list[int]:
        """One line a tool: name(arguments): description."""
        lines = [f"{tool.name}({', '.join(_argument_names(tool))}): {tool.description}" for tool in tools]
        return tokenizer.encode("\n".join(["", "tools:", *lines, f"write {self.prefix}name(value, value) to call one"]))

    def write_turn(self, tokenizer: Tokenizer, turn: Turn, tools: Sequence[ToolSpec]) -> list[int]:
        """Text, then a line for each call."""
        lines = [turn.content] if turn.content else []
        for call in turn.calls:
            values = (_line_value(value) for value in _positional(call, tools))
            lines.append(f"{self.prefix}{call.name}({', '.join(values)})")
        return tokenizer.encode("\n".join(lines)) if lines else []

    def read_turn(self, tokenizer: Tokenizer, ids: Sequence[int], tools: Sequence[ToolSpec]) -> Turn | None:
        """None if a call is followed by text, a tool unknown, or the number or type of values wrong."""
        lines = tokenizer.decode(ids).split("\n") if ids else []
        first = next((index for index, line in enumerate(lines) if line.startswith(self.prefix)), len(lines))
        calls = []
        for line in lines[first:]:
            name, opened, rest = line.removeprefix(self.prefix).partition("(")
            if not (line.startswith(self.prefix) and opened and rest.endswith(")")):
                return None
            values = _line_values(rest[:-1])
            call = None if values is None else _call_from_texts(name, values, tools)
            if call is None:
                return None
            calls.append(call)
        return Turn("\n".join(lines[:first]), tuple(calls))


def _argument_names(tool: ToolSpec) -> tuple[str, ...]:
    return tuple(_properties(tool))


def _properties(tool: ToolSpec) -> Mapping[str, Any]:
    properties = tool.parameters.get("properties") or {}
    if not isinstance(properties, Mapping):
        raise ConfigError(f"tool {tool.name!r}: 'properties' of its JSON schema must be an object, got {properties!r}")
    return properties


def _positional(call: ToolCall, tools: Sequence[ToolSpec]) -> list[Any]:
    """The call's values in the order of the schema; of a tool not offered, in the order written."""
    try:
        arguments = msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError as error:
        raise MalformedRequest(f"arguments of the call of {call.name!r} are not JSON ({error}): {call.arguments!r}") from error
    if not isinstance(arguments, dict):
        raise MalformedRequest(f"arguments of the call of {call.name!r} must be a JSON object, got {call.arguments!r}")
    tool = next((tool for tool in tools if tool.name == call.name), None)
    known = [name for name in _argument_names(tool) if name in arguments] if tool else []
    return [arguments[name] for name in known] + [value for name, value in arguments.items() if name not in known]


def _call_from_texts(name: str, values: Sequence[str], tools: Sequence[ToolSpec]) -> ToolCall | None:
    """A call from its positional texts; None unless the tool is offered and every value fits its schema's type."""
    tool = next((tool for tool in tools if tool.name == name), None)
    if tool is None or len(values) != len(_properties(tool)):
        return None
    arguments: dict[str, Any] = {}
    for (argument, schema), text in zip(_properties(tool).items(), values, strict=True):
        if _is_string(schema):
            arguments[argument] = text
            continue
        try:
            arguments[argument] = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return None
    try:
        return ToolCall("", name, _json_text(arguments))
    except UnicodeEncodeError:  # a lone surrogate, which a model can write as an escape in a quoted string
        return None


def _is_string(schema: Any) -> bool:
    return not isinstance(schema, Mapping) or schema.get("type", "string") == "string"


def _json_text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _split(ids: Sequence[int], mark: int) -> list[list[int]]:
    """Ids between the marks; one part more than there are marks."""
    parts: list[list[int]] = [[]]
    for token in ids:
        if token == mark:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _line_value(value: Any) -> str:
    if isinstance(value, str) and value and value == value.strip() and value[0] not in "[{" and _NOT_RAW.isdisjoint(value):
        return value
    return _json_text(value)


def _line_values(text: str) -> list[str] | None:
    """Splits 'a, "b, c", [1, 2]' at its outer commas; quoted strings come back unquoted. None if it is not well formed."""
    values: list[str] = []
    while text:
        if text[0] in '"[{':
            try:
                value, end = _JSON.raw_decode(text)
            except (ValueError, RecursionError):
                return None
            values.append(value if isinstance(value, str) else text[:end])
        else:
            end = text.find(",") if "," in text else len(text)
            values.append(text[:end])
        rest = text[end:]
        if (rest and not rest.startswith(", ")) or rest == ", ":
            return None
        text = rest[2:]
    return values
