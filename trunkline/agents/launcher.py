"""The black-box agent: any command, told by its environment where the model and the tools are. Owns no containment of its files.

FOR PROGRAMS THAT YOU TRUST ONLY. The command runs on this host, as this user, with this user's files and network within its
reach. What it gets is little (a fresh directory, a few variables, one key for one attempt) and what it starts is killed with
it, but nothing here stops a hostile program: it takes a sandbox to hold one.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import secrets
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

from trunkline.agents.openai_shape import wire_message, wire_tool
from trunkline.agents.process_tree import MARK, Ended, Limits, run_to_end
from trunkline.agents.tool_server import ToolDoor, serve_tools
from trunkline.errors import AgentError, ConfigError, InfraError
from trunkline.protocols import Assignment

INHERITED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
"""The host's variables that a command gets; everything else (keys, proxies, virtual environments) stays here."""
MAX_ANSWER_BYTES = 64 * 2**10
"""Of stdout; a longer answer is cut and ends with a line that says so."""
MAX_PROMPT_BYTES = 96 * 2**10
"""Of TRUNKLINE_PROMPT: Linux holds one variable to 128 KiB. A longer prompt is in TRUNKLINE_TASK alone."""

_NOT_EXECUTABLE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENOEXEC)
_LIMITS = Limits(stdout_head=MAX_ANSWER_BYTES, stderr_tail=4096)


class CommandAgent:
    """Runs a command once per attempt, in a fresh directory; its stdout, stripped, is the answer.

    The command is told by its environment:

        OPENAI_BASE_URL, OPENAI_API_KEY, OPENAI_MODEL   the model, for this attempt only; OpenAI's SDK reads the first two by itself
        TRUNKLINE_PROMPT    the user's text, unless it is longer than MAX_PROMPT_BYTES or holds a NUL
        TRUNKLINE_TASK      a JSON file: "messages", "tools" (both as in Chat Completions), "tools_url", "tools_key":
                            POST {tools_url}/NAME with the arguments as JSON and `Authorization: Bearer {tools_key}` -> {"result": "..."}
        HOME, TMPDIR        inside the fresh directory, which is removed afterwards
        PATH and the other names of INHERITED as they are here; nothing else

    Paths in the command should be absolute, for it runs elsewhere. An exit status other than 0 is an AgentError. Cancelling
    `run` ends the command with its whole process group and all descendants that can be found (process_tree.py).

    >>> agent = CommandAgent(("python", "/srv/agents/openai_agent.py", "--stream"))
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)

    async def run(self, assignment: Assignment) -> str:
        """The answer.

        Raises:
            AgentError: the command failed; with the end of its stderr.
            ConfigError: there is no such command.
            InfraError: it could not be started.
        """
        try:
            async with serve_tools(assignment.tools) as tools:
                folder = tempfile.TemporaryDirectory(prefix="trunkline-attempt-", ignore_cleanup_errors=True)
                try:
                    environment = _prepare(Path(folder.name), assignment, tools)
                    ended = await self._started(Path(folder.name) / "home", environment)
                finally:
                    await asyncio.to_thread(folder.cleanup)
        except OSError as error:  # no descriptor, process, memory or disk space is left
            raise InfraError(f"cannot start {self._command[0]!r} for an attempt: {error}") from error
        if ended.status != 0:
            raise AgentError(self._complaint(ended, hidden=(assignment.base_url, assignment.api_key, tools.key)))
        return _answer(ended)

    async def _started(self, cwd: Path, environment: dict[str, str]) -> Ended:
        try:
            return await run_to_end(self._command, cwd=cwd, environment=environment, limits=_LIMITS)
        except OSError as error:
            if error.errno not in _NOT_EXECUTABLE:
                raise
            raise ConfigError(
                f"cannot run {self._command[0]!r} ({error.strerror}); give an executable's absolute path, or a name on PATH"
            ) from error

    def _complaint(self, ended: Ended, *, hidden: Sequence[str]) -> str:
        if ended.status > 0:
            how = f"ended with exit status {ended.status}"
        else:
            how = f"was killed by {signal.Signals(-ended.status).name}"
        words = ended.stderr.decode(errors="replace").strip()
        for secret in hidden:
            words = words.replace(secret, "***")
        return f"the agent's command {self._command[0]!r} {how}; the end of its stderr:\n{words or '(empty)'}"


def _prepare(folder: Path, assignment: Assignment, tools: ToolDoor) -> dict[str, str]:
    """Fills the attempt's directory and returns the command's whole environment."""
    home, scratch, task = folder / "home", folder / "tmp", folder / "task.json"
    home.mkdir()
    scratch.mkdir()
    told = {
        "messages": [wire_message(message) for message in assignment.prompt],
        "tools": [wire_tool(spec) for spec in assignment.tools.specs],
        "tools_url": tools.url,
        "tools_key": tools.key,
    }
    task.write_text(json.dumps(told), encoding="utf-8")
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | {
        "HOME": str(home),
        "TMPDIR": str(scratch),
        "OPENAI_BASE_URL": assignment.base_url,
        "OPENAI_API_KEY": assignment.api_key,
        "OPENAI_MODEL": assignment.model,
        "TRUNKLINE_TASK": str(task),
        MARK: secrets.token_hex(16),
    }
    prompt = "\n\n".join(message.content for message in assignment.prompt if message.role == "user")
    if len(prompt.encode()) <= MAX_PROMPT_BYTES and "\0" not in prompt:
        environment["TRUNKLINE_PROMPT"] = prompt
    return environment


def _answer(ended: Ended) -> str:
    answer = ended.stdout.decode(errors="replace").strip()
    if ended.num_stdout > MAX_ANSWER_BYTES:
        answer += f"\n[cut here: the answer has {ended.num_stdout} bytes, {MAX_ANSWER_BYTES} are kept]"
    return answer
