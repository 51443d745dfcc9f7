"""The Protocols that cross rooms, each with its smallest example. Owns no implementation; no torch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from trunkline.types import (
    Command,
    CommandResult,
    Completion,
    Door,
    Episode,
    FileChange,
    FileEntry,
    Generation,
    GenerationRequest,
    Message,
    MessageNode,
    PolicyVersion,
    Reward,
    SandboxAct,
    SandboxLimits,
    SealedResult,
    SealedRun,
    Task,
    ToolSpec,
    WeightRef,
    Work,
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
class Surroundings:
    """What an attempt's sandbox has beside its workspace. `Surroundings(test_command=("python3", "-m", "pytest", "-q"))`."""

    shown: tuple[tuple[Path, str], ...] = ()
    """Paths of this host, and where they are seen inside, read-only."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """For every command in it."""
    test_command: tuple[str, ...] = ()
    """Runs the tests that the workspace has, or those of the files that are added to it; empty: nobody knows how."""


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
    acts: list[SandboxAct] = field(default_factory=list)
    """Where the agent's side writes down what was done in its sandbox, for the episode's record."""
    workspace: Path | None = None
    """The directory that its sandbox starts with; None: an empty one."""
    changes: list[FileChange] = field(default_factory=list)
    """Where the agent's side puts how the workspace was left, however the attempt ends; empty without a workspace."""
    surroundings: Surroundings = field(default_factory=Surroundings)
    """What its sandbox has beside that."""


class Service(Protocol):
    """A command that runs in the background of a sandbox; the sandbox's end is its end."""

    async def peek(self) -> tuple[int | None, bytes]:
        """Its exit status (None while it runs) and what it wrote so far, stdout and stderr together, cut like any output."""
        ...

    async def stop(self) -> CommandResult:
        """Kills its session of processes if it still runs, and tells how it ended."""
        ...


class SandboxFiles(Protocol):
    """The files of one sandbox. Paths are resolved inside, so no link leads out; a relative one starts at the workspace."""

    async def read(self, path: str, *, max_bytes: int = 2**24) -> bytes:
        """A regular file's content. Raises FileAccessError: not there, no file, larger than `max_bytes`."""
        ...

    async def write(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Writes a file, with the directories above it. Raises FileAccessError."""
        ...

    async def list(self, path: str = ".") -> tuple[FileEntry, ...]:
        """The names in a directory, sorted. Raises FileAccessError."""
        ...

    async def diff(self, *, max_bytes: int | None = None) -> tuple[FileChange, ...]:
        """Where the workspace differs from its base, by path; taken while all processes stand still, or are dead for a spent limit.

        Raises FileAccessError if that is more than `max_bytes`; None: more than the sandbox may write.
        """
        ...


class Sandbox(Protocol):
    """A place where untrusted commands run, with files of its own and no way out but its doors.

    >>> sandbox = await sandboxes.create(await sandboxes.prepare(Path("repository")), doors=(Door("model", 8700, socket),))
    >>> (await sandbox.run(Command.shell("make test", timeout_s=60))).status
    0
    """

    @property
    def files(self) -> SandboxFiles:
        """Its files."""
        ...

    @property
    def acts(self) -> tuple[SandboxAct, ...]:
        """All that was done with it so far."""
        ...

    async def run(self, command: Command) -> CommandResult:
        """Runs a command to its end. Cancelled, it kills the command.

        Raises:
            CommandNotStarted: there is no such program or directory, or no process is left.
            LimitExceeded: the sandbox was ended because it spent a limit.
            SandboxError: it is gone.
        """
        ...

    async def start(self, command: Command) -> Service:
        """Starts a command and leaves it running. Raises as `run` does."""
        ...

    async def snapshot(self) -> Snapshot:
        """A copy of its files, taken while all its processes stand still; to create other sandboxes from."""
        ...

    async def destroy(self) -> None:
        """Ends all its processes and removes its files; nothing of it is left. Twice is as good as once."""
        ...


@dataclass(frozen=True)
class Workspace:
    """A prepared directory from which sandboxes start: read-only, shared by all of them."""

    location: str
    """Where the backend keeps it."""


@dataclass(frozen=True)
class Snapshot:
    """The files of a sandbox at one moment."""

    location: str
    """Where the backend keeps it."""
    workspace: Workspace
    """What it differs from."""


class Sandboxes(Protocol):
    """A backend: makes sandboxes of one kind.

    >>> async with IsolatedSandboxes.open(IsolatedConfig()) as sandboxes: ...
    """

    @property
    def kind(self) -> str:
        """Its name and what holds its limits, for records, such as 'isolated (memory: cgroup v1, ...)'."""
        ...

    async def prepare(self, source: Path | None) -> Workspace:
        """A workspace with the content of a directory, or an empty one. Raises SandboxError."""
        ...

    async def create(
        self,
        start: Workspace | Snapshot,
        *,
        doors: Sequence[Door] = (),
        limits: SandboxLimits | None = None,
        surroundings: Surroundings | None = None,
    ) -> Sandbox:
        """A running sandbox with the files of `start`. Raises SandboxError, also if this backend cannot show what is to be shown."""
        ...

    async def discard(self, start: Workspace | Snapshot) -> None:
        """Removes a workspace or snapshot from which nothing will be created any more."""
        ...


class SealedSandboxes(Protocol):
    """Where verdicts run: a fresh sandbox a process, without doors and without a server of ours inside.

    >>> ran = await sandboxes.run_sealed(SealedRun(Command(("python3", "-c", "print(1)"), timeout_s=5)))
    >>> (ran.command.status, ran.command.stdout)
    (0, b'1\n')
    """

    async def run_sealed(self, run: SealedRun) -> SealedResult:
        """Runs it to its end, kills all that it started, and tells. Cancelled, it kills all at once.

        Raises:
            CommandNotStarted: there is no such program in it.
            SandboxError: there is no sandbox.
        """
        ...


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
    ...     async def verify(self, work): return (Reward("outcome", float(work.answer == "yes"), f"answer {work.answer!r}"),)
    """

    async def verify(self, work: Work) -> tuple[Reward, ...]:
        """Judges. Raises VerifierError if it cannot: no verdict is not a reward of 0."""
        ...


@dataclass(frozen=True)
class Attempt:
    """One attempt's environment, opened on a task: its tools and the verifier that watches them."""

    tools: Tools
    """Offered to the agent."""
    verifier: Verifier
    """Judges at the end."""
    workspace: Path | None = None
    """The directory that the agent works on; None: the task has none."""
    surroundings: Callable[[], Awaitable[Surroundings]] | None = None
    """Makes what its sandbox has beside that, or finds it; None: nothing. Raises TaskError, SandboxError."""


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
