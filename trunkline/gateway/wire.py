"""The gateway's other plug point: one API that agents speak, as bytes. Owns what a wire decodes to and answers from; no API.

body ──► WireAPI.decode ──► WireRequest.ask ──► Gateway.complete ──► Answer ──► WireRequest.body or .events
                                                    └── failed ──► WireAPI.refusal or .failure_event
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from trunkline.errors import (
    BudgetExceeded,
    ConfigError,
    EngineUnavailable,
    JournalError,
    MalformedRequest,
    TrunklineError,
    UnknownSession,
)
from trunkline.gateway.sampling import AskedSampling
from trunkline.types import Completion, Message, MessageNode, ToolSpec

MAX_SAMPLES = 128
"""Of one request: the limit of n in OpenAI's own API."""
RETRY_AFTER_S = 1
TOO_LARGE = "request_too_large"
"""The code of a MalformedRequest that is answered 413."""

_MAX_WORDS = 32

Past = Callable[[str], tuple[Message, ...] | None]
"""The whole conversation behind an earlier answer of this session, by completion id: its prompt's messages and its reply."""


@dataclass(frozen=True)
class ToolOffer:
    """The tools of a request."""

    specs: tuple[ToolSpec, ...] = ()
    """What the model may call."""
    key: bytes = b""
    """Equal if and only if the specs are equal."""


@dataclass(frozen=True)
class Ask:
    """A request of any wire API, validated."""

    messages: tuple[Message, ...]
    """At least one."""
    tools: ToolOffer = ToolOffer()
    """Rendered in the prompt."""
    may_call: bool = True
    """False for tool_choice 'none': a call that the model writes is answered as text."""
    asked: AskedSampling = field(default_factory=AskedSampling)
    """What the client wanted of the sampler."""
    num_samples: int = 1
    """How many completions of the one context."""
    wire: str = "chat"
    """The API it came by."""
    keeps_reasoning: bool = False
    """The client sends reasoning back, so that a turn without it is one whose reasoning was dropped on purpose."""
    not_honoured: tuple[str, ...] = ()
    """Keys and values that would change an answer and are not acted on, in words."""


@dataclass(frozen=True)
class Committed:
    """A call as it entered the record."""

    completion: Completion
    """The atomic training sample."""
    message: Message
    """The reply, as the agent gets it."""
    new_nodes: tuple[MessageNode, ...]
    """Nodes that it added to the tree, in index order."""
    stop_string: str | None = None
    """The client's stop string that ended it."""


@dataclass(frozen=True)
class Answer:
    """What a wire writes an answer from."""

    samples: tuple[Committed, ...]
    """As many as were asked, in order."""
    model: str
    """What the model is called."""
    created: int
    """Unix seconds."""
    text: Callable[[Sequence[int]], str]
    """The text of token ids, for log-probabilities by token."""
    not_honoured: tuple[str, ...] = ()
    """As in the Ask."""

    @property
    def num_prompt(self) -> int:
        """Tokens of the one context."""
        return len(self.samples[0].completion.prompt_ids)

    @property
    def num_sampled(self) -> int:
        """Tokens sampled in all, those after a stop string included."""
        return sum(one.completion.num_sampled + one.completion.facts.num_discarded for one in self.samples)


def each_once(words: Iterable[str]) -> tuple[str, ...]:
    """What is not honoured, at most `_MAX_WORDS` of it: it is recorded with every call."""
    each = list(dict.fromkeys(words))
    rest = [f"and {len(each) - _MAX_WORDS} more"] if len(each) > _MAX_WORDS else []
    return (*each[:_MAX_WORDS], *rest)


class WireRequest(Protocol):
    """One decoded request, which knows how its client wants the answer."""

    @property
    def ask(self) -> Ask:
        """What is asked."""
        ...

    @property
    def is_streamed(self) -> bool:
        """As server-sent events."""
        ...

    def body(self, answer: Answer) -> bytes:
        """The answer as one JSON object."""
        ...

    def events(self, answer: Answer) -> Iterator[bytes]:
        """The same answer as framed events (sse.py), cut up; joined by the API's rules they say what `body` says."""
        ...


class WireAPI(Protocol):
    """One API. chat_wire.py is the smallest."""

    @property
    def name(self) -> str:
        """chat, responses or messages."""
        ...

    def decode(self, body: bytes, past: Past) -> WireRequest:
        """Validates a request. Raises MalformedRequest naming the key that is wrong, and how to mend it."""
        ...

    def refusal(self, failure: Failed) -> bytes:
        """The body of an answer that is an error, in the API's own shape."""
        ...

    def failure_event(self, failure: Failed) -> bytes:
        """The framed event that says a failure after the stream began."""
        ...


@dataclass(frozen=True)
class Failed:
    """A failure on its way to the client."""

    status: int
    """Of HTTP."""
    kind: str
    """OpenAI's `type`: authentication_error, invalid_request_error, rate_limit_error, server_error."""
    code: str
    """OpenAI's `code`, ours."""
    message: str
    """What happened, in words."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Retry a 503; nothing else gets better by itself, and a spent budget tells the official clients not to try."""
        return {"retry-after": str(RETRY_AFTER_S)} if self.status == 503 else {"x-should-retry": "false"}


# The first match counts.
_FAILURES: tuple[tuple[type[TrunklineError], int, str, str], ...] = (
    (UnknownSession, 401, "authentication_error", "unknown_session"),
    (MalformedRequest, 400, "invalid_request_error", "malformed_request"),
    (ConfigError, 400, "invalid_request_error", "malformed_request"),
    (BudgetExceeded, 429, "rate_limit_error", "budget_exceeded"),
    (EngineUnavailable, 503, "server_error", "engine_unavailable"),
    (JournalError, 503, "server_error", "journal_unavailable"),
    (TrunklineError, 500, "server_error", "gateway_failure"),
)


def failed(error: TrunklineError) -> Failed:
    """What a failure is on the wire."""
    status, kind, code = next((status, kind, code) for failure, status, kind, code in _FAILURES if isinstance(error, failure))
    if isinstance(error, MalformedRequest):
        status, code = 413 if error.code == TOO_LARGE else status, error.code
    return Failed(status, kind, code, str(error))
