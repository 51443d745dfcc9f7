"""ATIF-v1.8, the Agent Trajectory Interchange Format (Harbor), as models with its rules. Owns the format; knows no episodes.

Trajectory ─► steps (system | user | agent) ─► tool_calls, observation.results, metrics (token ids, log-probabilities)
     └──────► subagent_trajectories: whole trajectories, found by their trajectory_id

A field that the format has not is an error. Documents of ATIF-v1.0 to v1.7 are read by the rules of v1.8, which only added to them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trunkline.errors import ConfigError

_Version = Literal["ATIF-v1.0", "ATIF-v1.1", "ATIF-v1.2", "ATIF-v1.3", "ATIF-v1.4", "ATIF-v1.5", "ATIF-v1.6", "ATIF-v1.7", "ATIF-v1.8"]
_AGENT_ONLY = ("model_name", "reasoning_effort", "reasoning_content", "tool_calls", "metrics")
_MAX_SHOWN_ERRORS = 5
_MAX_SHOWN_CHARS = 60


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Source(_Model):
    """Where an image or a recording is kept."""

    media_type: str
    """MIME type; image/... or audio/..., as its part says."""
    path: str
    """A file or a URL; never opened here."""
    duration_sec: float | None = Field(None, ge=0)
    """Seconds; of audio only."""


class ContentPart(_Model):
    """A piece of a message that is more than text."""

    type: Literal["text", "image", "audio"]
    """What it is."""
    text: str | None = None
    """Of text, and of nothing else."""
    source: Source | None = None
    """Of image and audio, and of nothing else."""

    @model_validator(mode="after")
    def _is_of_its_type(self) -> Self:
        if self.type == "text":
            if self.text is None or self.source is not None:
                raise ValueError("a part of type 'text' has `text` and no `source`")
            return self
        if self.source is None or self.text is not None:
            raise ValueError(f"a part of type {self.type!r} has `source` and no `text`")
        if not self.source.media_type.strip().lower().startswith(f"{self.type}/"):
            raise ValueError(f"a part of type {self.type!r} cannot be of media_type {self.source.media_type!r}")
        if self.type == "image" and self.source.duration_sec is not None:
            raise ValueError("an image has no duration_sec")
        return self


Content = str | tuple[ContentPart, ...]


class Agent(_Model):
    """Who acted."""

    name: str
    """The agent system."""
    version: str
    """Its version."""
    model_name: str | None = None
    """The model, where a step names no other."""
    tool_definitions: tuple[dict[str, Any], ...] | None = None
    """Its tools, as in a request of OpenAI's."""
    extra: dict[str, Any] | None = None
    """Anything else."""


class ToolCallPart(_Model):
    """A call that an agent step made."""

    tool_call_id: str
    """An observation names it."""
    function_name: str
    """The tool."""
    arguments: dict[str, Any]
    """As a JSON object."""
    extra: dict[str, Any] | None = None
    """Anything else."""


class SubagentRef(_Model):
    """Points at the trajectory of a sub-agent."""

    trajectory_id: str | None = None
    """Of a trajectory in this document."""
    session_id: str | None = None
    """For people; nothing is found by it."""
    trajectory_path: str | None = None
    """Of another file; never opened here."""
    extra: dict[str, Any] | None = None
    """Anything else."""

    @model_validator(mode="after")
    def _can_be_followed(self) -> Self:
        if self.trajectory_id is None and self.trajectory_path is None:
            raise ValueError("a reference to a sub-agent needs trajectory_id or trajectory_path; nothing is found by session_id alone")
        return self


class ObservationResult(_Model):
    """What one call, or the world, gave back."""

    source_call_id: str | None = None
    """The call of the same step that it answers."""
    content: Content | None = None
    """What was said."""
    subagent_trajectory_ref: tuple[SubagentRef, ...] | None = None
    """Sub-agents that it was delegated to."""
    extra: dict[str, Any] | None = None
    """Anything else."""


class Observation(_Model):
    """All that came back to a step."""

    results: tuple[ObservationResult, ...]
    """In order."""


class Metrics(_Model):
    """What a step's calls of the model took, and their tokens."""

    prompt_tokens: int | None = None
    """Cached ones included."""
    completion_tokens: int | None = None
    """Sampled."""
    cached_tokens: int | None = None
    """Of the prompt's, those that a cache had."""
    cost_usd: float | None = None
    """US dollars."""
    prompt_token_ids: tuple[int, ...] | None = None
    """The exact context."""
    completion_token_ids: tuple[int, ...] | None = None
    """The exact tokens sampled."""
    logprobs: tuple[float, ...] | None = None
    """log p of each sampled token."""
    extra: dict[str, Any] | None = None
    """Anything else."""


class Step(_Model):
    """One turn."""

    step_id: int = Field(ge=1)
    """1, 2, 3, ... in its trajectory."""
    timestamp: str | None = None
    """ISO 8601."""
    source: Literal["system", "user", "agent"]
    """Who speaks."""
    model_name: str | None = None
    """The model, if not the agent's usual one."""
    reasoning_effort: str | float | None = None
    """How much thinking was asked for."""
    message: Content
    """What was said."""
    reasoning_content: str | None = None
    """The thinking before it."""
    tool_calls: tuple[ToolCallPart, ...] | None = None
    """Its calls."""
    observation: Observation | None = None
    """What came back."""
    metrics: Metrics | None = None
    """Tokens and costs."""
    is_copied_context: bool | None = None
    """True: given, not done here; keep out of training data."""
    llm_call_count: int | None = Field(None, ge=0)
    """Calls of a model behind it; 0 is none, None is not known."""
    extra: dict[str, Any] | None = None
    """Anything else."""

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        if self.timestamp is not None:
            _check_timestamp(self.timestamp)
        if self.source != "agent" and (wrong := [name for name in _AGENT_ONLY if getattr(self, name) is not None]):
            raise ValueError(f"a step of source {self.source!r} has no {', '.join(wrong)}: only agent steps have")
        is_dispatch = self.source == "agent" and self.llm_call_count == 0
        if is_dispatch and (wrong := [name for name in ("metrics", "reasoning_content") if getattr(self, name) is not None]):
            raise ValueError(f"an agent step with llm_call_count 0 called no model, so it has no {', '.join(wrong)}")
        known = {call.tool_call_id for call in self.tool_calls or ()}
        for result in self.results:
            if result.source_call_id is not None and result.source_call_id not in known:
                raise ValueError(f"source_call_id {result.source_call_id!r} names no call of this step; its calls are {sorted(known)}")
        return self

    @property
    def results(self) -> tuple[ObservationResult, ...]:
        """Of its observation; empty without one."""
        return self.observation.results if self.observation else ()


class FinalMetrics(_Model):
    """Sums over a trajectory."""

    total_prompt_tokens: int | None = None
    """Cached ones included."""
    total_completion_tokens: int | None = None
    """Sampled."""
    total_cached_tokens: int | None = None
    """Of the prompts', those that a cache had."""
    total_cost_usd: float | None = None
    """US dollars, sub-agents included."""
    total_steps: int | None = Field(None, ge=0)
    """The steps."""
    extra: dict[str, Any] | None = None
    """Anything else."""


class Trajectory(_Model):
    """A document, or a trajectory embedded in one."""

    schema_version: _Version = "ATIF-v1.8"
    """The format's version."""
    session_id: str | None = None
    """The agent's run; several trajectories may share it."""
    trajectory_id: str | None = None
    """This trajectory's own name in the document; an embedded one must have it."""
    agent: Agent
    """Who acted."""
    steps: tuple[Step, ...] = Field(min_length=1)
    """In order."""
    notes: str | None = None
    """For people."""
    final_metrics: FinalMetrics | None = None
    """Sums."""
    continued_trajectory_ref: str | None = None
    """The file in which it goes on; never opened here."""
    subagent_trajectories: tuple[Trajectory, ...] | None = None
    """Whole trajectories inside this one."""
    extra: dict[str, Any] | None = None
    """Anything else."""

    @model_validator(mode="after")
    def _is_counted_and_named(self) -> Self:
        for place, step in enumerate(self.steps):
            if step.step_id != place + 1:
                raise ValueError(f"steps[{place}].step_id must be {place + 1}, got {step.step_id}; steps are numbered 1, 2, 3, ...")
        for place, inner in enumerate(self.subagent_trajectories or ()):
            if inner.trajectory_id is None:
                raise ValueError(f"subagent_trajectories[{place}] has no trajectory_id; an embedded trajectory needs one")
        return self

    def walk(self) -> Iterator[Trajectory]:
        """This trajectory, then all that are embedded in it, at any depth."""
        yield self
        for inner in self.subagent_trajectories or ():
            yield from inner.walk()


def read_trajectory(text: str | bytes, where: str) -> Trajectory:
    """A document. Raises ConfigError that says what is wrong, at which place of the document, and what to do.

    Args:
        text: JSON.
        where: what to call it in an error, such as its path.
    """
    try:
        trajectory = Trajectory.model_validate(json.loads(text))
        check_document(trajectory)
    except ValidationError as error:
        raise ConfigError(f"{where} is no ATIF trajectory: {_told(error)}; correct it there, or have it exported again") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is no ATIF trajectory: {error}; correct it, or have it exported again") from None
    return trajectory


def check_document(trajectory: Trajectory) -> None:
    """The rules that span a document. Raises ValueError if an id is used twice or a reference names none."""
    ids = Counter(one.trajectory_id for one in trajectory.walk() if one.trajectory_id is not None)
    for name, number in ids.items():
        if number > 1:
            raise ValueError(f"trajectory_id {name!r} is used {number} times; each trajectory of a document has its own")
    for one in trajectory.walk():
        for step in one.steps:
            for ref in (ref for result in step.results for ref in result.subagent_trajectory_ref or ()):
                if ref.trajectory_path is None and ref.trajectory_id not in ids:
                    raise ValueError(
                        f"step {step.step_id} of {one.trajectory_id or 'the trajectory'} refers to trajectory_id {ref.trajectory_id!r}, "
                        f"which is not in the document; it has {sorted(ids)}"
                    )


def write_trajectory(trajectory: Trajectory) -> str:
    """The document as one line of JSON, without what is not set."""
    return trajectory.model_dump_json(exclude_none=True) + "\n"


def _check_timestamp(text: str) -> None:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"timestamp {text!r} is not ISO 8601, such as 2025-10-11T10:30:00Z") from None


def _told(error: ValidationError) -> str:
    """The first few faults, each with its place and the value there."""
    faults: dict[str, str] = {}
    for fault in error.errors(include_url=False):
        place = _place(fault["loc"])
        said = fault["msg"].removeprefix("Value error, ")
        has_value = fault["type"] not in ("missing", "value_error", "extra_forbidden")
        value = f", got {_short(fault['input'])}" if has_value else ""
        said = "is no field of the format" if fault["type"] == "extra_forbidden" else said
        faults.setdefault(place, f"{place}: {said}{value}")  # a value that may be of two types fails twice
    more = f" (and {len(faults) - _MAX_SHOWN_ERRORS} more)" if len(faults) > _MAX_SHOWN_ERRORS else ""
    return "; ".join(list(faults.values())[:_MAX_SHOWN_ERRORS]) + more


def _place(location: Sequence[int | str]) -> str:
    """'steps[2].metrics.logprobs[0]', without pydantic's words for the members of a union."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part not in ("str", "float") and "[" not in part:
            text += f".{part}" if text else part
    return text or "the document"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "..."
