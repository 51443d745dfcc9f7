"""How a program that is an agent is started in its sandbox, and where its answer lies afterwards. Owns no sandbox and no adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from trunkline.agents.program import MAX_ANSWER_BYTES, answer_of
from trunkline.errors import AgentError, FileAccessError
from trunkline.protocols import Sandbox
from trunkline.types import CommandResult

MAX_JSON_BYTES = 8 * 2**20
"""Of the text that holds an answer as JSON; more is a failure of the agent."""
MAX_WORKSPACE_BYTES = 2**20
"""Of changed files, where the workspace is the answer; more is a failure of the agent."""

AnswerSource = Literal["stdout", "json", "file", "workspace"]


@dataclass(frozen=True)
class Places:
    """What one attempt offers to the program inside its sandbox."""

    base_url: str
    """Of the model, in OpenAI's style: it ends in /v1."""
    api_key: str
    """Opens the model, for this attempt only."""
    model: str
    """The name to ask for."""
    prompt: str
    """The task: the texts of its messages, one after another."""
    prompt_file: str
    """A file that holds the same."""
    workspace: str
    """The current directory at the start."""
    task_file: str
    """The JSON that program.py describes."""
    tools_url: str
    """The task's tools over plain HTTP."""
    mcp_url: str
    """The same by MCP's streamable HTTP."""
    tools_key: str
    """Opens both, as `Authorization: Bearer KEY`."""

    @property
    def root_url(self) -> str:
        """Of the model, in Anthropic's style: without /v1."""
        return self.base_url.removesuffix("/v1")


@dataclass(frozen=True)
class AnswerFrom:
    """Where a program leaves its answer. `AnswerFrom("json", value="result")`."""

    source: AnswerSource = "stdout"
    """stdout, stripped; json: a value in JSON; file: its text, stripped; workspace: what differs there, as a JSON object."""
    file: str = ""
    """file, json: where it is inside; json without one: stdout."""
    value: str = ""
    """json: keys and list places joined by dots, such as 'messages.-1.content'."""


@dataclass(frozen=True)
class Launch:
    """One start of a program, everything filled in. `Launch(("python3", "/srv/agent.py"))`."""

    argv: tuple[str, ...]
    """The program and its arguments."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside what every program is told (program.py); it wins."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Path inside -> text, written before the start."""
    stdin: str = ""
    """What it reads; then its stdin ends."""
    answer: AnswerFrom = AnswerFrom()
    """Where its answer is."""

    @property
    def max_output_bytes(self) -> int:
        """Of stdout that have to be kept."""
        return 2 * (MAX_JSON_BYTES if self.answer.source == "json" else MAX_ANSWER_BYTES)


class Launcher(Protocol):
    """What a program needs to know of an attempt before it can start.

    >>> class Asks:
    ...     def launch(self, places): return Launch(("ask", places.prompt), {"URL": places.base_url})
    """

    def launch(self, places: Places) -> Launch:
        """The start for one attempt. Raises AgentError if the program cannot be told its task."""
        ...


@dataclass(frozen=True)
class PlainCommand:
    """A program that reads the variables and the file of program.py by itself, and prints its answer."""

    argv: tuple[str, ...]
    """As in the recipe's agent.command."""

    def launch(self, places: Places) -> Launch:
        """The command as it is."""
        return Launch(self.argv)


async def read_answer(answer: AnswerFrom, sandbox: Sandbox, result: CommandResult) -> str:
    """The answer of a program that ended well. Raises AgentError if it is not where it should be, SandboxError."""
    if answer.source == "stdout":
        return answer_of(result.stdout, result.num_stdout)
    if answer.source == "json":
        whole = await _read(answer.file, sandbox) if answer.file else _whole_stdout(result)
        return _value_at(answer.value, _json_in(whole))
    if answer.source == "file":
        content = await _read(answer.file, sandbox)
        return answer_of(content, len(content))
    return await _changes(sandbox)


async def _read(path: str, sandbox: Sandbox) -> bytes:
    try:
        return await sandbox.files.read(path, max_bytes=MAX_JSON_BYTES)
    except FileAccessError as error:
        raise AgentError(f"the agent ended without its answer in {path}: {error}") from error


async def _changes(sandbox: Sandbox) -> str:
    """{"path": "text", "gone.txt": null}: files that are new or changed, and what was deleted; links and devices are left out."""
    changes = await sandbox.files.diff()
    size = sum(len(change.content) for change in changes)
    if size > MAX_WORKSPACE_BYTES:
        raise AgentError(f"the agent left {size} bytes of changes in its workspace, as an answer it may have {MAX_WORKSPACE_BYTES}")
    told = {one.path: one.content.decode(errors="replace") if one.kind == "file" else None for one in changes if _is_told(one.kind)}
    return json.dumps(told, ensure_ascii=False, sort_keys=True)


def _is_told(kind: str) -> bool:
    return kind in ("file", "deleted")


def _whole_stdout(result: CommandResult) -> bytes:
    if result.num_stdout > MAX_JSON_BYTES:
        raise AgentError(f"the agent printed {result.num_stdout} bytes, its answer is looked for in at most {MAX_JSON_BYTES}")
    return result.stdout


def _json_in(content: bytes) -> Any:
    """All of it, or else its last line that is an object (JSON lines, or log lines before it)."""
    text = content.decode(errors="replace").strip()
    for candidate in (text, *reversed([line for line in text.splitlines() if line.startswith("{")])):
        try:
            return json.loads(candidate)
        except (json.JSONDecodeError, RecursionError):
            continue
    raise AgentError(f"what the agent left holds no JSON with its answer; it begins: {text[:200]!r}")


def _value_at(path: str, value: Any) -> str:
    for step in path.split(".") if path else ():
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError, ValueError):
            raise AgentError(f"the agent's JSON has no {path!r}: there is no {step!r} in {str(value)[:200]!r}") from None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
