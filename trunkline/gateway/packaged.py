"""The chat formats of big model families, from the `renderers` package. Owns the adapter, no format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from trunkline.errors import ConfigError, MalformedRequest
from trunkline.gateway.base import Parsed
from trunkline.gateway.plain_text import PlainTextTokenizer, marked
from trunkline.types import Message, ToolCall, ToolSpec

_PROBE_TOOL = ToolSpec("probe_tool", "Shows whether tools are rendered.", {"type": "object", "properties": {"x": {"type": "string"}}})
_PACKAGE_ERRORS = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, AssertionError)
_REASONING_MARKS = frozenset(("<think>", "</think>"))


def load_packaged_renderer(name: str, tokenizer: Any) -> PackagedRenderer:
    """The package's renderer `name` ('qwen3', 'glm-5', 'minimax-m2', ...) over a transformers tokenizer.

    Raises:
        ConfigError: no such renderer, the tokenizer lacks its tokens, or its template ignores tools.
    """
    import renderers  # here, because it is slow to import and most runs do without it

    try:
        config = renderers.config_from_name(name)
    except ValueError as error:  # lists the names
        raise ConfigError(f"no packaged renderer {name!r}; choose a known one. {error}") from error
    if config is None:
        raise ConfigError(f"renderer {name!r} would be guessed from the tokenizer's name; choose it by name, such as 'qwen3'")
    try:
        inner = renderers.create_renderer(tokenizer if name == "default" else PlainTextTokenizer(tokenizer), config)
    except (AssertionError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"renderer {name!r} does not fit this tokenizer: {error or type(error).__name__}") from error
    renderer = PackagedRenderer(name, inner, tokenizer)
    renderer.require_tools()
    return renderer


class PackagedRenderer:
    """A Renderer (gateway/base.py) over one of the package's.

    Args:
        name: its name in the package, for messages.
        inner: the package's renderer.
        tokenizer: the transformers tokenizer under it. Spellings of its added tokens in messages stay text (plain_text.py);
            a model's own chat template ('default') cannot tell them apart, so there they are refused.
    """

    def __init__(self, name: str, inner: Any, tokenizer: Any) -> None:
        self._name = name
        self._inner = inner
        self._tokenizer = tokenizer
        self._control_texts = frozenset(tokenizer.get_added_vocab())

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """As the package says."""
        return tuple(self._inner.get_stop_token_ids())

    def require_tools(self) -> None:
        """Raises ConfigError if a tool changes nothing in the prompt: the model could not know of it."""
        probe = (Message("user", "probe"),)
        if self.prompt(probe, (_PROBE_TOOL,)) == self.prompt(probe, ()):
            raise ConfigError(f"the template of renderer {self._name!r} ignores tools; use one that renders them, or the chatml markup")

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> tuple[int, ...]:
        """The package's full render with its generation prompt."""
        try:
            return tuple(self._inner.render_ids(self._as_dicts(messages), tools=_tool_dicts(tools), add_generation_prompt=True))
        except _PACKAGE_ERRORS as error:
            raise MalformedRequest(f"renderer {self._name!r} cannot write these messages: {error}") from error

    def bridge(
        self,
        prompt_ids: Sequence[int],
        completion_ids: Sequence[int],
        new_messages: Sequence[Message],
        tools: Sequence[ToolSpec],
    ) -> tuple[int, ...] | None:
        """The package's bridge; None where it rewrites the past (a new user query drops reasoning in some families)."""
        bridged = self._inner.bridge_to_next_turn(
            list(prompt_ids), list(completion_ids), self._as_dicts(new_messages), tools=_tool_dicts(tools)
        )
        return None if bridged is None else tuple(bridged.token_ids)

    def reply(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> tuple[int, ...]:
        """The tokens of the last turn that the package marks as sampled; and its stop token, where that opens the next turn."""
        dicts, last = self._as_dicts(messages), len(messages) - 1
        rendered = self._inner.render(dicts, tools=_tool_dicts(tools))
        ids = _sampled_of(rendered, last)
        if ids[-1:] and ids[-1] in self.stop_token_ids:
            return ids
        calls = messages[last].tool_calls
        following = Message("tool", "x", tool_call_id=calls[0].call_id) if calls else Message("user", "x")
        longer = self._inner.render(self._as_dicts((*messages, following)), tools=_tool_dicts(tools))
        end = _sampled_of(longer, last)[-1:]
        return (*ids, *end) if set(end) <= set(self.stop_token_ids) else ids

    def parse(self, completion_ids: Sequence[int], tools: Sequence[ToolSpec]) -> Parsed:
        """Any malformed call, and any call without a stop token after it, makes the whole turn text."""
        try:
            parsed = self._inner.parse_response(list(completion_ids), tools=_tool_dicts(tools))
        except _PACKAGE_ERRORS as error:  # sampled garbage that its parser does not foresee is as malformed as any
            text = self._tokenizer.decode(list(completion_ids), skip_special_tokens=True)
            return Parsed(Message("assistant", text), f"{type(error).__name__} of the parser")
        reasoning = parsed.reasoning_content or ""
        problem = self._problem(parsed.tool_calls, completion_ids, {tool.name for tool in tools})
        if problem is not None:
            text = "".join([parsed.content, *(call.raw for call in parsed.tool_calls)])
            return Parsed(Message("assistant", text, reasoning=reasoning), problem)
        return Parsed(Message("assistant", parsed.content, tuple(map(_tool_call, parsed.tool_calls)), reasoning=reasoning))

    def text(self, token_ids: Sequence[int]) -> str:
        """As the tokenizer decodes them."""
        text: str = self._tokenizer.decode(list(token_ids))
        return text

    def _problem(self, calls: Sequence[Any], completion_ids: Sequence[int], offered: set[str]) -> str | None:
        """Why the calls cannot be answered as calls."""
        malformed = [call for call in calls if call.status != "ok"]
        unknown = [call.name for call in calls if call.name not in offered]
        is_closed = bool(completion_ids) and completion_ids[-1] in self.stop_token_ids
        if malformed:
            return f"a call that cannot be read: {malformed[0].status}"
        if unknown:
            return f"a call of {unknown[0]!r}, which is not offered"[:200]
        return "a call that was cut" if calls and not is_closed else None

    def _as_dicts(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        return [self._as_dict(message) for message in messages]

    def _as_dict(self, message: Message) -> dict[str, Any]:
        # Clients of models that think in their content send the marks back in it, and the format knows them there.
        keeps_marks = message.role == "assistant" and not message.reasoning
        written: dict[str, Any] = {"role": message.role, "content": self._plain(message.content, keeps_marks=keeps_marks)}
        if message.reasoning:
            written["reasoning_content"] = self._plain(message.reasoning)
        if message.tool_call_id is not None:
            written["tool_call_id"] = message.tool_call_id
        if message.tool_calls:
            written["tool_calls"] = [
                {"id": self._call_id(call, place), "type": "function", "function": {"name": call.name, "arguments": self._arguments(call)}}
                for place, call in enumerate(message.tool_calls)
            ]
        return written

    def _arguments(self, call: ToolCall) -> Any:
        try:
            arguments = json.loads(call.arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise MalformedRequest(f"arguments of the call of {call.name!r} are not JSON ({error}): {call.arguments!r:.200}") from error
        return self._plain_json(arguments)

    def _plain_json(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._plain(value)
        if isinstance(value, list):
            return [self._plain_json(item) for item in value]
        return {key: self._plain_json(item) for key, item in value.items()} if isinstance(value, dict) else value

    def _plain(self, text: str, *, keeps_marks: bool = False) -> str:
        controls = self._control_texts - _REASONING_MARKS if keeps_marks else self._control_texts
        if self._name != "default":
            return marked(text, controls)
        found = [control for control in controls if control in text]
        if found:
            raise MalformedRequest(f"a message holds the control text {found[0]!r}; escape it before it is sent")
        return text

    def _call_id(self, call: ToolCall, place: int) -> str:
        """Kimi's format has no other place for the name than the id."""
        is_nameless = self._name.startswith("kimi") and not call.call_id.startswith(f"functions.{call.name}:")
        return f"functions.{call.name}:{place}" if is_nameless else call.call_id


def _sampled_of(rendered: Any, message: int) -> tuple[int, ...]:
    streams = zip(rendered.token_ids, rendered.message_indices, rendered.sampled_mask, strict=True)
    return tuple(token for token, index, is_sampled in streams if is_sampled and index == message)


def _tool_dicts(tools: Sequence[ToolSpec]) -> list[dict[str, Any]] | None:
    if not tools:
        return None
    return [
        {"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}}
        for tool in tools
    ]


def _tool_call(call: Any) -> ToolCall:
    arguments = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments or {}, ensure_ascii=False)
    return ToolCall(call.id or "", call.name, arguments)
