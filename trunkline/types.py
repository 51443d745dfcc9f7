"""The vocabulary that crosses rooms, as frozen dataclasses. Owns no behaviour beyond checking and walking itself; no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "abort"]
EpisodeStatus = Literal["finished", "deadline", "failed"]
Boundary = Literal["agent", "sandbox", "gateway", "engine", "verifier", "infra", "config"]
ToolWire = Literal["http", "mcp"]
Lineage = Literal["first", "extension", "repeat", "reformatted", "edited", "truncated", "compacted", "dropped_reasoning", "fresh"]


def _check_equal_lengths(owner: str, **streams: tuple[Any, ...]) -> None:
    lengths = {name: len(stream) for name, stream in streams.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{owner}: token streams must have one length, got {lengths}; align them where they are made")


# --- policy -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class PolicyVersion:
    """One published set of weights; never reused. `str(PolicyVersion(1, 12)) == "1.12"`."""

    incarnation: int
    """How often the run was started: 1 at first, raised at every resume."""
    step: int
    """Optimiser steps behind these weights."""

    def __str__(self) -> str:
        return f"{self.incarnation}.{self.step}"

    @classmethod
    def parse(cls, text: str) -> PolicyVersion:
        """The inverse of str(). Raises ValueError on anything but 'INCARNATION.STEP'."""
        incarnation, dot, step = text.partition(".")
        if not (dot and incarnation.isdigit() and step.isdigit()):
            raise ValueError(f"a policy version is written INCARNATION.STEP such as '1.12', got {text!r}")
        return cls(int(incarnation), int(step))

    def age_at(self, training: PolicyVersion) -> int:
        """Optimiser steps between sampling (self) and `training`; never negative, also after a resume."""
        return max(0, training.step - self.step)


@dataclass(frozen=True)
class WeightRef:
    """Where one published set of weights can be fetched."""

    path: Path
    """A safetensors file whose metadata repeats the version."""
    version: PolicyVersion
    """The version these weights are."""


# --- conversation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToolSpec:
    """A tool as an agent offers it to the model. `ToolSpec("area", "Area of a country in km2", {...JSON schema...})`."""

    name: str
    """The name the model calls it by."""
    description: str
    """What it does, for the model."""
    parameters: Mapping[str, Any]
    """JSON schema of its arguments (type object); the order of `properties` is the order of positional renderings."""
    latency_s: float = 0.0
    """Seconds that a call is declared to take, for the virtual clock (episodes/virtual_clock.py); never told to the model."""


@dataclass(frozen=True)
class ToolCall:
    """A call that the model wrote. `ToolCall("call_0", "area", '{"country": "Peru"}')`."""

    call_id: str
    """Unique in its message; a tool result names it."""
    name: str
    """The tool's name, as written."""
    arguments: str
    """JSON text of the arguments."""


@dataclass(frozen=True)
class ToolUse:
    """A tool call that a program made through its attempt's tool server, with what it was answered.

    `ToolUse("area", '{"country": "Peru"}', "1285220", "http")`.
    """

    name: str
    """The tool's name, as sent."""
    arguments: str
    """Text of the arguments, as sent; over MCP, where they arrive inside a larger JSON text, their JSON."""
    result: str
    """What the tool said."""
    wire: ToolWire
    """What it was sent over."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. `Message("user", "What is the area of Peru?")`."""

    role: Role
    """Who speaks."""
    content: str = ""
    """The text; empty where an assistant turn only calls tools."""
    tool_calls: tuple[ToolCall, ...] = ()
    """An assistant's calls, in order."""
    tool_call_id: str | None = None
    """Of a tool result: the call it answers."""
    reasoning: str = ""
    """An assistant's thinking before the content, where its format tells them apart."""


@dataclass(frozen=True)
class MessageNode:
    """A message in an episode's tree: each message is stored once, a call is a walk from its node to a root."""

    message: Message
    """The message itself."""
    parent: int | None
    """Index of the message before it in the episode's `messages`; None at a root."""


def walk_to(node: int, messages: Sequence[MessageNode]) -> tuple[int, ...]:
    """The nodes from a root of an episode's tree to `node`, both included."""
    walk: list[int] = []
    above: int | None = node
    while above is not None:
        walk.append(above)
        above = messages[above].parent
    return tuple(reversed(walk))


# --- generation -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SamplingParams:
    """The distribution a completion is sampled from, and where it ends."""

    max_tokens: int
    """At most this many tokens are sampled."""
    temperature: float = 1.0
    """Logits are divided by it; 0 is greedy."""
    top_p: float = 1.0
    """Nucleus mass kept; 1 keeps all."""
    seed: int = 0
    """Seeds this completion alone (64 bits, unsigned)."""
    stop_token_ids: tuple[int, ...] = ()
    """Sampling ends after any of these; the stop token is part of the completion."""

    @property
    def is_policy_distribution(self) -> bool:
        """True if tokens come from the whole softmax at a positive temperature, so that they may be trained."""
        return self.temperature > 0 and self.top_p >= 1.0


@dataclass(frozen=True)
class GenerationRequest:
    """One call of the engine: token ids in."""

    request_id: str
    """Unique; names the request in an abort."""
    token_ids: tuple[int, ...]
    """The exact prompt."""
    sampling: SamplingParams
    """How to sample."""


@dataclass(frozen=True)
class VersionSpan:
    """Tokens [start, end) of a completion were sampled under `version`."""

    start: int
    """First token, counted in the completion."""
    end: int
    """One past the last."""
    version: PolicyVersion
    """The weights that sampled them."""


@dataclass(frozen=True)
class RoutedExperts:
    """Where each layer of a sparse model sent a run of tokens, each token as input (its route decides what comes after it)."""

    first: int
    """Place of the first of them, counted in prompt and completion laid end to end."""
    num_layers: int
    """Layers that route."""
    top_k: int
    """Experts a token and layer."""
    data: bytes
    """Expert ids as little-endian uint16 in the order [token, layer, choice]; the order of choices means nothing."""

    def __post_init__(self) -> None:
        if self.first < 0 or self.num_layers < 1 or self.top_k < 1 or len(self.data) % (2 * self.num_layers * self.top_k):
            raise ValueError(
                f"RoutedExperts: {len(self.data)} bytes from place {self.first} are not whole rows of "
                f"{self.num_layers} layers x {self.top_k} experts x 2 bytes"
            )

    @property
    def num_tokens(self) -> int:
        """Tokens with a record."""
        return len(self.data) // (2 * self.num_layers * self.top_k)

    def rows(self, start: int, end: int) -> RoutedExperts:
        """The records of the places start .. end - 1, as far as there are any."""
        start, end = max(start, self.first), min(end, self.first + self.num_tokens)
        size = 2 * self.num_layers * self.top_k
        return replace(self, first=start, data=self.data[(start - self.first) * size : max(start, end) * size - self.first * size])


@dataclass(frozen=True)
class Generation:
    """What the engine answers: token ids out, with their log-probabilities under the distribution sampled from."""

    token_ids: tuple[int, ...]
    """Sampled tokens, the stop token included."""
    logprobs: tuple[float, ...]
    """log p of each sampled token."""
    finish_reason: FinishReason
    """stop: a stop token was sampled; length: max_tokens reached; abort: cut from outside."""
    version_spans: tuple[VersionSpan, ...]
    """Which weights sampled which tokens; covers all tokens in order."""
    routes: RoutedExperts | None = None
    """Of a sparse model: the routes of sampled tokens as input, so of all but the last; with those of the prompt before them if asked."""

    def __post_init__(self) -> None:
        _check_equal_lengths("Generation", token_ids=self.token_ids, logprobs=self.logprobs)


@dataclass(frozen=True)
class CallFacts:
    """What the gateway noted of a call beside its tokens; nothing here changes what is trained."""

    wire: str = ""
    """The API it came by: chat, responses or messages."""
    lineage: Lineage = "first"
    """How its context came out of earlier ones of its session; gateway/lineage.py says what each word means."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """What the client asked of the sampler, whether it was honoured or not: temperature, top_p, stop, ..."""
    not_honoured: tuple[str, ...] = ()
    """What the client asked that changes answers and was not done, in words."""
    num_discarded: int = 0
    """Tokens sampled after a stop string of the client; they are no part of the completion."""
    format_error: str | None = None
    """Why calls in it could not be read, so that they reached the agent as text; None if it is well formed."""
    num_foreign: int = 0
    """Assistant turns in its prompt that this episode's model never sampled."""


@dataclass(frozen=True)
class Completion:
    """One sampled call as the gateway recorded it: the atomic training sample (prompt_ids, token_ids)."""

    completion_id: str
    """Unique in the run."""
    session_id: str
    """The session (not its secret) that asked."""
    prompt_ids: tuple[int, ...]
    """The exact context the model saw."""
    generation: Generation
    """What was sampled."""
    sampling: SamplingParams
    """The distribution it was sampled from."""
    prompt_node: int
    """Index in the episode's `messages` of the last prompt message."""
    reply_node: int
    """Index in the episode's `messages` of the assistant message that was sampled."""
    parent_id: str | None = None
    """The earlier completion whose recorded tokens this prompt begins with; None at a root or a new branch."""
    num_shared: int = 0
    """How many leading tokens of prompt_ids equal the parent's prompt + completion."""
    drop_reason: str | None = None
    """Why its tokens may not be trained (greedy, restricted, ...); None if they may."""
    facts: CallFacts = field(default_factory=CallFacts)
    """What else is known of it."""

    @property
    def num_sampled(self) -> int:
        """Number of sampled tokens."""
        return len(self.generation.token_ids)


# --- sandboxes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Door:
    """A declared way out of a sandbox: 127.0.0.1:`port` inside leads to a Unix socket of ours. `Door("model", 8700, path)`."""

    name: str
    """What is behind it, for the record."""
    port: int
    """The TCP port inside."""
    socket: Path
    """Where it leads on this machine."""


@dataclass(frozen=True)
class SandboxLimits:
    """What one sandbox may use. Which mechanism holds each limit, the sandbox says in its record."""

    memory_bytes: int = 2 * 2**30
    """Of all its processes together."""
    num_processes: int = 256
    """At once, threads included."""
    cpus: float = 1.0
    """Cores' worth of time, averaged over 100 ms; held by a cgroup only."""
    disk_bytes: int = 2**30
    """What it writes, all files together."""
    num_files: int = 100_000
    """Files that it makes."""
    num_open_files: int = 1024
    """Descriptors of one process."""
    wall_s: float = 3600.0
    """Seconds until it is ended."""


@dataclass(frozen=True)
class Command:
    """What to run in a sandbox. `Command(("python3", "-c", "print(1)"))`, or `Command.shell("make && make test")`."""

    argv: tuple[str, ...]
    """The program, looked up on the sandbox's PATH, and its arguments."""
    cwd: str | None = None
    """Directory inside; None is the workspace."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables beside those of the sandbox; they win."""
    stdin: bytes = b""
    """What it reads; then its stdin ends."""
    timeout_s: float | None = None
    """Seconds until its session of processes is killed; None: as long as the sandbox lives."""
    max_output_bytes: int = 2**20
    """Kept of stdout, and of stderr: the first half and the last half; what lies between is left out, and said to be."""

    @classmethod
    def shell(cls, text: str, **options: Any) -> Command:
        """The same by /bin/sh."""
        return cls(("/bin/sh", "-c", text), **options)


@dataclass(frozen=True)
class CommandResult:
    """How a command ended, with what it wrote."""

    status: int
    """Its exit status, or minus the signal that killed it."""
    stdout: bytes
    """At most `max_output_bytes` and a line that says how much was left out."""
    stderr: bytes
    """The same."""
    num_stdout: int
    """Bytes written to stdout in all."""
    num_stderr: int
    """Bytes written to stderr in all."""
    is_timeout: bool
    """Killed because its time was up."""
    seconds: float
    """Wall time."""


@dataclass(frozen=True)
class FileEntry:
    """One name in a directory of a sandbox."""

    name: str
    """Without the directory."""
    kind: Literal["file", "directory", "symlink", "other"]
    """What it is; links are not followed."""
    num_bytes: int
    """Its size."""


@dataclass(frozen=True)
class FileChange:
    """One path of the workspace that differs from its base."""

    path: str
    """Relative to the workspace."""
    kind: Literal["file", "directory", "symlink", "deleted", "other"]
    """What is there now; other: a device, socket or pipe."""
    mode: int = 0
    """Permission bits."""
    content: bytes = b""
    """Of a file; of a symlink its target."""


@dataclass(frozen=True)
class SealedRun:
    """One process to run without doors and without a server inside: started from outside, its end read from outside."""

    command: Command
    """What to run, with a timeout; its directory is /workspace unless it says otherwise."""
    trees: tuple[Path, ...] = ()
    """Directories of this host that lie over each other at /workspace, later ones on top; what is written there is thrown away."""
    shown: tuple[tuple[Path, str], ...] = ()
    """Paths of this host, and where they are seen inside, read-only."""
    collects: str | None = None
    """A directory inside, empty at first, whose files come back."""
    keeps_changes: bool = False
    """Whether what it does to /workspace comes back."""
    max_report_bytes: int = 2**22
    """Of what it writes to the descriptor whose number is in $TRUNKLINE_REPORT_FD; more is cut."""
    limits: SandboxLimits | None = None
    """None: the backend's."""

    def __post_init__(self) -> None:
        if self.command.timeout_s is None:
            raise ValueError("SealedRun: a command that nobody watches needs a timeout_s")


@dataclass(frozen=True)
class SealedResult:
    """How a sealed process ended, as its starter saw it; every process it left is dead."""

    command: CommandResult
    """Status, output, time."""
    report: bytes
    """What it wrote to its report descriptor."""
    is_report_cut: bool
    """It wrote more than it may."""
    collected: tuple[FileChange, ...] = ()
    """The files of `collects`, by path in it."""
    changes: tuple[FileChange, ...] = ()
    """What it did to /workspace, if that was kept."""
    spent: str = ""
    """The limit that ended it, in words; '' if none did. A timeout is in `command`."""


@dataclass(frozen=True)
class SandboxAct:
    """One thing done to or by a sandbox, for the episode's record. `SandboxAct("run", "make test", status=0, seconds=1.2)`."""

    op: str
    """create, run, start, stop, read, write, list, diff, snapshot, limit, end, ..."""
    detail: str
    """What of it, in words; cut at 2,000 characters."""
    status: int | None = None
    """Exit status, where there is one."""
    seconds: float = 0.0
    """Wall time that it took."""
    num_bytes: int = 0
    """Moved in or out."""


# --- tasks, episodes, groups --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One instance of work, the same for all attempts of a group."""

    task_id: str
    """Unique in its taskset; names the instance, so that it can be made again."""
    taskset: str
    """Short name of the taskset."""
    kind: str
    """Stratum for reports, such as 'one_hop.area'."""
    prompt: tuple[Message, ...]
    """What the agent is asked."""
    payload: Mapping[str, Any]
    """The taskset's own data (facts, expected answer); never shown to the agent."""


@dataclass(frozen=True)
class Work:
    """What an attempt left, for its verdict. `Work("1285216")`."""

    answer: str
    """The agent's final answer; '' if none."""
    changes: tuple[FileChange, ...] = ()
    """Where its workspace differs from what it was given."""


@dataclass(frozen=True)
class Reward:
    """A verified reward with the evidence for it."""

    name: str
    """What was judged, such as 'outcome'."""
    value: float
    """In [0, 1] for outcomes."""
    evidence: str
    """One line a person can check."""
    at: int | None = None
    """Index of the completion in the episode that earned it; None: the whole episode, at its end."""

    def __post_init__(self) -> None:
        if self.at is not None and self.at < 0:
            raise ValueError(f"Reward: completions count from 0, got at={self.at}; None means the whole episode")


@dataclass(frozen=True)
class Failure:
    """Why an attempt gave no verdict, or was cut short: data with a cause, never a reward of 0."""

    boundary: Boundary
    """Which boundary was crossed."""
    kind: str
    """Class of the error."""
    message: str
    """What happened, in words."""


@dataclass(frozen=True)
class Episode:
    """One attempt at one task: all its completions and rewards."""

    episode_id: str
    """Unique in the run."""
    group_id: str
    """The group it belongs to."""
    task_id: str
    """The task attempted."""
    attempt: int
    """0 .. G-1 in its group."""
    status: EpisodeStatus
    """finished; deadline (trained with what it earned); failed (masked from the baseline)."""
    completions: tuple[Completion, ...]
    """Every sampled call, in order of commit."""
    messages: tuple[MessageNode, ...]
    """Each message once."""
    rewards: tuple[Reward, ...] = ()
    """Empty if and only if the episode failed."""
    failure: Failure | None = None
    """The cause, where status is not 'finished'."""
    duration_s: float = 0.0
    """Wall seconds on its own clock (which stops while the engine is paused)."""
    acts: tuple[SandboxAct, ...] = ()
    """What was done in its sandbox, in order; empty without one."""
    patch: str = ""
    """What it did to its workspace, as a unified diff that ends with a note if some was left out; '' if nothing, or without one."""

    @property
    def reward(self) -> float | None:
        """The sum of its rewards; None if it failed."""
        return sum(reward.value for reward in self.rewards) if self.status != "failed" else None


@dataclass(frozen=True)
class Group:
    """G episodes of one task, as the pool hands them to the trainer's side."""

    group_id: str
    """Unique in the run."""
    index: int
    """Submission order, from 0, without gaps."""
    task: Task
    """What was attempted."""
    episodes: tuple[Episode, ...]
    """All attempts, by attempt number."""

    @property
    def valid_rewards(self) -> tuple[float, ...]:
        """Rewards of the episodes that did not fail."""
        return tuple(episode.reward for episode in self.episodes if episode.reward is not None)

    @property
    def earned_before(self) -> tuple[tuple[float, ...], ...]:
        """For each valid episode and each of its completions, in order of commit: what earlier completions earned (`Reward.at`)."""
        return tuple(
            tuple(
                sum(reward.value for reward in episode.rewards if reward.at is not None and reward.at < place)
                for place in range(len(episode.completions))
            )
            for episode in self.episodes
            if episode.status != "failed"
        )

    @property
    def has_gradient(self) -> bool:
        """False with fewer than two valid episodes, or if all earned the same and no step of any earned something by itself.

        Such a group is consumed and counted only.
        """
        if len(self.valid_rewards) < 2:
            return False
        return len(set(self.valid_rewards)) > 1 or any(map(any, self.earned_before))


# --- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainSample:
    """One (prompt, response) pair with aligned streams; position t speaks of token t."""

    token_ids: tuple[int, ...]
    """Prompt, then response."""
    mask: tuple[bool, ...]
    """True where the token was sampled and is trained; False at the first token."""
    logprobs: tuple[float, ...]
    """Recorded at sampling; 0 where not masked in."""
    advantages: tuple[float, ...]
    """Credit of each token; 0 where not masked in."""
    temperature: float = 1.0
    """The recorded sampling temperature; the trainer divides logits by it."""
    is_current: bool = False
    """True if the very weights that the step starts from sampled all of it: then the trainer must compute the recorded logprobs."""
    routes: tuple[RoutedExperts, ...] = ()
    """Recorded routes of its tokens, by the calls that sampled them; samples of one episode hold the same objects. Empty: dense, or off."""

    def __post_init__(self) -> None:
        _check_equal_lengths(
            "TrainSample",
            token_ids=self.token_ids,
            mask=self.mask,
            logprobs=self.logprobs,
            advantages=self.advantages,
        )
        if self.mask and self.mask[0]:
            raise ValueError("TrainSample: the first token has no context and cannot be trained; clear mask[0]")


@dataclass(frozen=True)
class Demonstration:
    """A token sequence to imitate, with aligned loss weights."""

    token_ids: tuple[int, ...]
    """The rendered conversation."""
    weights: tuple[float, ...]
    """Loss weight of each token; 0 is not trained; the first is 0."""

    def __post_init__(self) -> None:
        _check_equal_lengths("Demonstration", token_ids=self.token_ids, weights=self.weights)
        if self.weights and self.weights[0]:
            raise ValueError("Demonstration: the first token has no context and cannot be trained; set weights[0] to 0")


@dataclass(frozen=True)
class StepStats:
    """What one optimiser step reports."""

    step: int
    """Optimiser steps done, this one included."""
    loss: float
    """The objective's value."""
    grad_norm: float
    """Global norm before clipping."""
    learning_rate: float
    """Used in this step."""
    num_samples: int
    """Samples in the step."""
    num_flat_tokens: int
    """Tokens if each sample were computed alone."""
    num_forest_tokens: int
    """Tokens computed: distinct contexts."""
    num_trained_tokens: int
    """Tokens in the loss's denominator."""
    flop_ratio: float
    """Modelled FLOPs of the flat computation over the forest's."""
    seconds: float
    """Wall time of the step."""
    extra: Mapping[str, float] = field(default_factory=dict)
    """Named by the loss: clip share, ratio mean, max |logprob difference|, ..."""
