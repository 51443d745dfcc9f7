"""One tree of failures, named for the boundary crossed. Owns the classes; what becomes of a failure is the caller's.

TrunklineError
├── ConfigError      the recipe, the command line, a file the user named
│   └── TaskError          a task's directory, or an instance of another format
├── AgentError       the agent's program
│   ├── DeadlineExceeded
│   └── LimitExceeded      its sandbox spent a limit
├── SandboxError     the place where commands run
│   ├── SandboxUnavailable this host cannot make one
│   ├── CommandNotStarted  no such program or directory, or no process left
│   └── FileAccessError    no such file, or none that can be read or written
├── GatewayError     the wire between agent and model
│   ├── UnknownSession     401
│   ├── MalformedRequest   400
│   │   └── ContextExceeded    400, with the code by which agents know that they must shorten their history
│   └── BudgetExceeded     429
├── EngineError      the model's server
│   └── EngineUnavailable  503, worth a retry
├── TrainerError     the optimiser's process
├── VerifierError    the judge itself failed: no verdict, never a reward of 0
├── CertificateError a task that may not be trained on
└── InfraError       disk, sockets, processes
    └── JournalError       the durable record could not be written
"""

from __future__ import annotations

from trunkline.types import Boundary, Failure


class TrunklineError(Exception):
    """Base of every failure that Trunkline names. `boundary` says which wall it crossed."""

    boundary: Boundary = "infra"

    def as_failure(self) -> Failure:
        """The failure as data, for an episode's record."""
        return Failure(self.boundary, type(self).__name__, str(self))


class ConfigError(TrunklineError):
    """The user's recipe, flag or file is wrong; the message says what to change."""

    boundary: Boundary = "config"


class TaskError(ConfigError):
    """A task's files are not what its format demands, or ask for what cannot be honoured; the message names the place and the cure."""


class AgentError(TrunklineError):
    """The agent's own program failed."""

    boundary: Boundary = "agent"


class DeadlineExceeded(AgentError):
    """The agent ran out of its time; it keeps the reward it earned."""


class LimitExceeded(AgentError):
    """The agent's sandbox spent its disk, memory or wall time; it keeps the reward it earned."""


class SandboxError(TrunklineError):
    """A sandbox could not be made, or broke."""

    boundary: Boundary = "sandbox"


class SandboxUnavailable(SandboxError):
    """This host cannot make sandboxes of the wanted kind; the message has the remedy and the alternatives."""


class CommandNotStarted(SandboxError):
    """A command could not be started in its sandbox."""


class FileAccessError(SandboxError):
    """A file of a sandbox could not be read, written or listed."""


class GatewayError(TrunklineError):
    """A request at the wire was refused."""

    boundary: Boundary = "gateway"


class UnknownSession(GatewayError):
    """No open session has this path or key (HTTP 401)."""


class MalformedRequest(GatewayError):
    """The body is not a valid request (HTTP 400). `code` is the fault's name where a wire API has one that its clients act on."""

    def __init__(self, message: str, *, code: str = "malformed_request") -> None:
        super().__init__(message)
        self.code = code


class ContextExceeded(MalformedRequest):
    """The prompt is longer than the session's context (HTTP 400)."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="context_length_exceeded")


class BudgetExceeded(GatewayError):
    """The session spent its calls or tokens (HTTP 429)."""


class EngineError(TrunklineError):
    """The engine refused or broke."""

    boundary: Boundary = "engine"


class EngineUnavailable(EngineError):
    """The engine does not answer now; a retry may help (HTTP 503)."""


class TrainerError(TrunklineError):
    """The trainer's process refused or broke."""


class VerifierError(TrunklineError):
    """The verifier itself failed: no verdict."""

    boundary: Boundary = "verifier"


class CertificateError(TrunklineError):
    """A task has no valid certificate in our store."""

    boundary: Boundary = "verifier"


class InfraError(TrunklineError):
    """Disk, sockets or processes failed."""


class JournalError(InfraError):
    """The durable record could not be written; the run stops rather than lose data."""
