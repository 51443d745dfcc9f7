"""The Protocols that cross rooms, each with its smallest example. Owns no implementation; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trunkline.types import (
    Completion,
    Episode,
    Generation,
    GenerationRequest,
    Message,
    MessageNode,
    PolicyVersion,
    Reward,
    Task,
    ToolSpec,
    WeightRef,
)


class Engine(Protocol):
    """Token ids in; token ids, log-probabilities and versions out.

    >>> class Parrot:
    ...     async def generate(self, request):
    ...         spans = (VersionSpan(0, 1, PolicyVersion(1, 0)),)
    ...         return Generation(request.token_ids[-1:], (0.0,), "length", spans)
    """

    async def generate(self, request: GenerationRequest) -> Generation:
        """Samples one completion. Raises EngineUnavailable (retryable) or EngineError."""
        ...

    async def abort(self, request_ids: Sequence[str]) -> None:
        """Ends these requests; their generate() returns what was sampled, with finish_reason 'abort'."""
        ...

    async def pause(self) -> None:
        """Stops sampling; running requests keep their state."""
        ...

    async def resume(self) -> None:
        """Samples on."""
        ...

    async def update_weights(self, ref: WeightRef) -> None:
        """Loads published weights; requests in flight go on under them, with their spans recorded."""
        ...


class Tools(Protocol):
    """The tools of one attempt, as the white-box loop calls them. Results are recorded on our side.

    >>> class Echo:
    ...     specs = (ToolSpec("echo", "Say it back", {"type": "object", "properties": {"text": {"type": "string"}}}),)
    ...     async def call(self, name, arguments): return arguments
    """

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What the agent may offer to the model."""
        ...

    async def call(self, name: str, arguments: str) -> str:
        """Runs one tool on JSON text; a bad name or bad arguments give an error text, never an exception."""
        ...


@dataclass(frozen=True)
class Assignment:
    """What an agent is given: the work, and the one way to reach the model."""

    prompt: tuple[Message, ...]
    """The task's messages."""
    tools: Tools
    """The task's tools."""
    base_url: str
    """An OpenAI-style base URL, ending in /v1."""
    api_key: str
    """Secret of this attempt."""
    model: str
    """The model name to ask for."""


class Agent(Protocol):
    """Any program that works on a task through the model.

    >>> class AnswersYes:
    ...     async def run(self, assignment): return "yes"
    """

    async def run(self, assignment: Assignment) -> str:
        """Works until done and returns the final answer ('' if none). Raises AgentError on its own failure."""
        ...


class Verifier(Protocol):
    """Turns the outcome of one attempt into rewards with evidence; keeps its own record of what tools returned.

    >>> class AnswerIsYes:
    ...     def verify(self, answer): return (Reward("outcome", float(answer == "yes"), f"answer {answer!r}"),)
    """

    def verify(self, answer: str) -> tuple[Reward, ...]:
        """Judges. Raises VerifierError if it cannot."""
        ...


@dataclass(frozen=True)
class Attempt:
    """One attempt's environment, opened on a task: its tools and the verifier that watches them."""

    tools: Tools
    """Offered to the agent."""
    verifier: Verifier
    """Judges at the end."""


class Taskset(Protocol):
    """A source of tasks. `split` is 'train', 'heldout', or one of the taskset's harder splits.

    >>> class OneTask:
    ...     name = "one"
    ...     def task(self, split, index): return Task("one/0", "one", "only", (Message("user", "Say yes"),), {})
    ...     def open(self, task): return Attempt(Echo(), AnswerIsYes())
    """

    name: str

    def task(self, split: str, index: int) -> Task:
        """The index-th task of a split; the same arguments give the same task."""
        ...

    def open(self, task: Task) -> Attempt:
        """A fresh environment for one attempt; attempts share nothing that an agent can change."""
        ...


@dataclass(frozen=True)
class EpisodeSpec:
    """What to run: one attempt at one task."""

    task: Task
    """The task."""
    group_id: str
    """Its group."""
    attempt: int
    """0 .. G-1."""
    seed: int
    """Episode seed; each call's seed derives from it."""
    retry: int = 0
    """How often this attempt was begun before; part of the episode's id, so that each try has a record of its own."""


class EpisodeRunner(Protocol):
    """Runs one attempt end to end.

    >>> class Fails:
    ...     async def run(self, spec): return Episode(..., status="failed", failure=Failure("infra", "Example", "always"))
    """

    async def run(self, spec: EpisodeSpec) -> Episode:
        """Never raises for a failed rollout: a failure is data. Raises only JournalError and cancellation."""
        ...


class CompletionLog(Protocol):
    """The durable record of sampled calls; the gateway awaits it before an answer leaves.

    >>> class Forgets:
    ...     async def record_completion(self, episode_id, completion, messages): pass
    """

    async def record_completion(self, episode_id: str, completion: Completion, messages: Sequence[MessageNode]) -> None:
        """Returns once durable. `messages` are the nodes that this call adds to the episode's tree, in index order.

        Raises JournalError if the record cannot be written.
        """
        ...


class WeightSource(Protocol):
    """Where the conductor gets published weights from (the trainer's side).

    >>> class Fixed:
    ...     async def publish(self, version, directory): return WeightRef(directory / "weights.safetensors", version)
    """

    async def publish(self, version: PolicyVersion, directory: Path) -> WeightRef:
        """Writes the current weights under `version` and returns where."""
        ...
