"""What a program that is an agent is told, and how its answer is read. Owns no process and no place where it runs.

A program is told by its environment:

    OPENAI_BASE_URL, OPENAI_API_KEY, OPENAI_MODEL   the model, for this attempt only; OpenAI's SDK reads the first two by itself
    TRUNKLINE_PROMPT    the user's text, unless it is longer than MAX_PROMPT_BYTES or holds a NUL
    TRUNKLINE_TASK      a JSON file: "messages", "tools" (both as in Chat Completions), "tools_url", "mcp_url", "tools_key":
                        POST {tools_url}/NAME with the arguments as JSON and `Authorization: Bearer {tools_key}` -> {"result": "..."};
                        the same tools at {mcp_url}, by MCP's streamable HTTP with the same header
    HOME, TMPDIR        empty directories that are gone afterwards

Its stdout, stripped, is the answer; an exit status other than 0 is a failure of the agent.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence

from trunkline.agents.openai_shape import wire_message, wire_tool
from trunkline.agents.tool_server import ToolDoor
from trunkline.errors import ConfigError
from trunkline.protocols import Assignment
from trunkline.types import SandboxAct, ToolUse

MAX_ANSWER_BYTES = 64 * 2**10
"""Of stdout; a longer answer is cut and ends with a line that says so."""
MAX_PROMPT_BYTES = 96 * 2**10
"""Of TRUNKLINE_PROMPT: Linux holds one variable to 128 KiB. A longer prompt is in TRUNKLINE_TASK alone."""
IN_A_SANDBOX = (
    "give our loop tools on it (agent.workspace.tools), or set agent.command or agent.adapter, and sandbox.kind to 'isolated', "
    "'container', or not at all"
)
"""What to do about an agent that is in none."""
STDERR_TAIL_BYTES = 4096
"""Of stderr, in the complaint about a failed program."""


def refuse_workspace(assignment: Assignment) -> None:
    """For agents that are not in a sandbox. Raises ConfigError if the task gives a directory to work on: nothing would isolate it."""
    if assignment.workspace is not None:
        raise ConfigError(f"the task gives a workspace ({assignment.workspace}), which is worked on in a sandbox alone; {IN_A_SANDBOX}")


def task_file(assignment: Assignment, tools: ToolDoor) -> bytes:
    """The content of TRUNKLINE_TASK."""
    told = {
        "messages": [wire_message(message) for message in assignment.prompt],
        "tools": [wire_tool(spec) for spec in assignment.tools.specs],
        "tools_url": tools.url,
        "mcp_url": tools.mcp_url,
        "tools_key": tools.key,
    }
    return json.dumps(told).encode()


def prompt_text(assignment: Assignment) -> str:
    """The whole task as one text, for programs that take one: what its system and user messages say."""
    return "\n\n".join(message.content for message in assignment.prompt if message.role in ("system", "user"))


def model_environment(assignment: Assignment, *, base_url: str) -> dict[str, str]:
    """The variables that lead to the model, and the prompt."""
    environment = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": assignment.api_key, "OPENAI_MODEL": assignment.model}
    prompt = "\n\n".join(message.content for message in assignment.prompt if message.role == "user")
    if len(prompt.encode()) <= MAX_PROMPT_BYTES and "\0" not in prompt:
        environment["TRUNKLINE_PROMPT"] = prompt
    return environment


def answer_of(stdout: bytes, num_stdout: int) -> str:
    """The answer in what is kept of stdout."""
    answer = stdout[:MAX_ANSWER_BYTES].decode(errors="replace").strip()
    if num_stdout > MAX_ANSWER_BYTES:
        answer += f"\n[cut here: the answer has {num_stdout} bytes, {MAX_ANSWER_BYTES} are kept]"
    return answer


def complaint(name: str, status: int, stderr: bytes, *, hidden: Sequence[str], stdout: bytes = b"") -> str:
    """How a program failed, with the end of its stderr, or of its stdout if that is empty; `hidden` are secrets of the attempt."""
    how = f"ended with exit status {status}" if status > 0 else f"was killed by {signal.Signals(-status).name}"
    stream, said = ("stdout", stdout) if stdout.strip() and not stderr.strip() else ("stderr", stderr)
    words = said[-STDERR_TAIL_BYTES:].decode(errors="replace").strip()
    for secret in hidden:
        words = words.replace(secret, "***")
    return f"the agent's command {name!r} {how}; the end of its {stream}:\n{words or '(empty)'}"


def act_of(use: ToolUse) -> SandboxAct:
    """A call of a tool as the episode's record has it."""
    return SandboxAct("tool", f"{use.name}({use.arguments}) by {use.wire} -> {use.result}"[:2000], num_bytes=len(use.result))
