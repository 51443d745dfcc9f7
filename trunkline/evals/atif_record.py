"""What ATIF has no field for, under the key `trunkline` of its `extra` objects, and messages as steps. Owns this encoding, exactly.

A record that JSON cannot hold safely (lone surrogates, infinities, deep nesting) is kept as a text that holds it:
its JSON with whatever is not ASCII escaped once more (Python's unicode_escape, which keeps halves of surrogate pairs apart).
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any, Literal, TypeVar

import msgspec

from trunkline.errors import ConfigError
from trunkline.evals.atif_schema import Content, Metrics, ObservationResult, Step, ToolCallPart
from trunkline.types import (
    CallFacts,
    Completion,
    Episode,
    EpisodeStatus,
    Failure,
    FinishReason,
    Generation,
    Lineage,
    Message,
    MessageNode,
    Reward,
    Role,
    RoutedExperts,
    SamplingParams,
    SandboxAct,
    ToolCall,
    VersionSpan,
)

KEY = "trunkline"
"""Of every `extra` that has something of ours."""

_MAX_DEPTH = 32
_ROLES: dict[Literal["system", "user", "agent"], Role] = {"system": "system", "user": "user", "agent": "assistant"}

Value = TypeVar("Value")


class EpisodeRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of the document: an episode without messages and calls. Names and meanings as in types.Episode."""

    episode_id: str
    group_id: str
    task_id: str
    attempt: int
    status: EpisodeStatus
    duration_s: float
    num_messages: int
    """Of the episode; a step for each is somewhere in the document."""
    num_calls: int
    """Of the episode; a step with metrics for each."""
    rewards: tuple[Reward, ...] = ()
    failure: Failure | None = None
    acts: tuple[SandboxAct, ...] = ()
    patch: str = ""

    @classmethod
    def of(cls, episode: Episode) -> EpisodeRecord:
        """What `episode` has beside messages and calls."""
        names = [name for name in cls.__struct_fields__ if name not in ("num_messages", "num_calls")]
        return cls(
            num_messages=len(episode.messages), num_calls=len(episode.completions), **{name: getattr(episode, name) for name in names}
        )

    def episode(self, completions: tuple[Completion, ...], messages: tuple[MessageNode, ...]) -> Episode:
        """The inverse."""
        return Episode(completions=completions, messages=messages, **{name: getattr(self, name) for name in self._names()})

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in cls.__struct_fields__ if name not in ("num_messages", "num_calls")]


class CallRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of a step's metrics: a completion without its tokens. Names and meanings as in types.Completion and types.Generation."""

    index: int
    """Its place among the episode's completions."""
    completion_id: str
    session_id: str
    finish_reason: FinishReason
    version_spans: tuple[VersionSpan, ...]
    sampling: SamplingParams
    parent_id: str | None = None
    num_shared: int = 0
    drop_reason: str | None = None
    facts: CallFacts = msgspec.field(default_factory=CallFacts)
    logprobs: tuple[float, ...] | None = None
    """If one is not finite; else they are in the metrics."""
    routes: RoutedExperts | None = None
    """Its data as base64."""

    @classmethod
    def of(cls, index: int, completion: Completion) -> CallRecord:
        """What `completion` has beside tokens and messages."""
        generation = completion.generation
        is_finite = all(map(math.isfinite, generation.logprobs))
        return cls(
            index=index,
            completion_id=completion.completion_id,
            session_id=completion.session_id,
            finish_reason=generation.finish_reason,
            version_spans=generation.version_spans,
            sampling=completion.sampling,
            parent_id=completion.parent_id,
            num_shared=completion.num_shared,
            drop_reason=completion.drop_reason,
            facts=completion.facts,
            logprobs=None if is_finite else generation.logprobs,
            routes=generation.routes,
        )

    def completion(self, metrics: Metrics, *, prompt_node: int, reply_node: int) -> Completion:
        """The inverse. Raises ValueError if the streams of `metrics` have not one length."""
        logprobs = (metrics.logprobs or ()) if self.logprobs is None else self.logprobs
        return Completion(
            completion_id=self.completion_id,
            session_id=self.session_id,
            prompt_ids=metrics.prompt_token_ids or (),
            generation=Generation(metrics.completion_token_ids or (), logprobs, self.finish_reason, self.version_spans, self.routes),
            sampling=self.sampling,
            prompt_node=prompt_node,
            reply_node=reply_node,
            parent_id=self.parent_id,
            num_shared=self.num_shared,
            drop_reason=self.drop_reason,
            facts=self.facts,
        )


class NodeRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of a step or an observation's result: which message of the episode it is."""

    node: int
    """Index in the episode's messages."""
    message: Message | None = None
    """The message itself, where the step's own fields do not give it back."""


class ArgumentsRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a call: its arguments as the model wrote them, where the object's plain JSON is another text, or they are no object."""

    arguments: str
    """The text."""


class StrandRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of an embedded trajectory, and of a reference to it: how its context came about."""

    lineage: Lineage
    """A word of types.Lineage, from its first call."""


def packed(record: msgspec.Struct) -> dict[str, Any]:
    """An `extra` that holds `record`."""
    text = json.dumps(msgspec.to_builtins(record), ensure_ascii=False)
    value = json.loads(text)
    return {KEY: value if _is_portable(value) else text.encode("unicode_escape").decode()}


def unpacked(extra: dict[str, Any] | None, kind: type[Value], place: str) -> Value | None:
    """The inverse; None if there is nothing of ours. Raises ConfigError that names `place` if it cannot be read."""
    if extra is None or KEY not in extra:
        return None
    value = extra[KEY]
    try:
        return msgspec.convert(json.loads(value.encode().decode("unicode_escape")) if isinstance(value, str) else value, kind)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{place}: extra.{KEY} is not what this version of Trunkline writes ({error}); export it again, or remove "
            f"extra.{KEY} of the document to read it as another program's"
        ) from None


# --- messages ---------------------------------------------------------------------------------------------------------


def message_step(node: int, message: Message) -> Step:
    """A message that is no tool's as a first step, without metrics."""
    source = next(source for source, role in _ROLES.items() if role == message.role)
    is_agent = source == "agent"
    step = Step(
        step_id=1,
        source=source,
        message=well_formed(message.content),
        reasoning_content=well_formed(message.reasoning) if is_agent and message.reasoning else None,
        tool_calls=tuple(map(_call_part, message.tool_calls)) if is_agent and message.tool_calls else None,
    )
    record = NodeRecord(node) if message_of_step(step) == message else NodeRecord(node, message)
    return step.model_copy(update={"extra": packed(record)})


def tool_result(node: int, message: Message, call_ids: Collection[str]) -> ObservationResult:
    """A tool's message as a result of the step that made the calls `call_ids`."""
    call_id = message.tool_call_id if message.tool_call_id in call_ids else None
    result = ObservationResult(source_call_id=call_id, content=well_formed(message.content))
    record = NodeRecord(node) if message_of_result(result) == message else NodeRecord(node, message)
    return result.model_copy(update={"extra": packed(record)})


def message_of_step(step: Step) -> Message:
    """What a step says, without its observation. Raises ConfigError if a record of ours in a call cannot be read."""
    calls = tuple(ToolCall(call.tool_call_id, call.function_name, _arguments_text(call)) for call in step.tool_calls or ())
    return Message(_ROLES[step.source], text_of(step.message), calls, reasoning=step.reasoning_content or "")


def message_of_result(result: ObservationResult) -> Message:
    """What a result says."""
    return Message("tool", text_of(result.content), tool_call_id=result.source_call_id)


def text_of(content: Content | None) -> str:
    """The text of a message; images and sounds are left out."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text or "" for part in content)


def well_formed(text: str) -> str:
    """The text with lone surrogates as U+FFFD, which every program can read."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _call_part(call: ToolCall) -> ToolCallPart:
    part = ToolCallPart(
        tool_call_id=well_formed(call.call_id), function_name=well_formed(call.name), arguments=_arguments_object(call.arguments)
    )
    return part if _arguments_text(part) == call.arguments else part.model_copy(update={"extra": packed(ArgumentsRecord(call.arguments))})


def _arguments_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) and _is_portable(value) else {}


def _arguments_text(part: ToolCallPart) -> str:
    record = unpacked(part.extra, ArgumentsRecord, f"call {part.tool_call_id!r}")
    return json.dumps(part.arguments, ensure_ascii=False, separators=(",", ":")) if record is None else record.arguments


def _is_portable(value: Any, depth: int = 0) -> bool:
    """True if every JSON parser gives it back: no lone surrogate, no infinity, no deep nesting."""
    if isinstance(value, str):
        return value.isascii() or well_formed(value) == value
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return depth < _MAX_DEPTH and all(_is_portable(key) and _is_portable(one, depth + 1) for key, one in value.items())
    if isinstance(value, list):
        return depth < _MAX_DEPTH and all(_is_portable(one, depth + 1) for one in value)
    return True
