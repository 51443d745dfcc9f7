"""The black-box agent on this host, as this user: `sandbox.kind = "unsafe"`. Owns no containment of its files.

FOR PROGRAMS THAT YOU TRUST AS YOURSELF. The command runs with this user's files and network within its reach. What it gets is
little (a fresh directory, a few variables, one key for one attempt) and what it starts is killed with it, but nothing here
stops a hostile program: boxed_command.py does.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from trunkline.agents.process_tree import MARK, Ended, Limits, run_to_end
from trunkline.agents.program import (
    MAX_ANSWER_BYTES,
    STDERR_TAIL_BYTES,
    act_of,
    answer_of,
    complaint,
    model_environment,
    refuse_workspace,
    task_file,
)
from trunkline.agents.tool_server import ToolDoor, serve_tools
from trunkline.errors import AgentError, ConfigError, InfraError
from trunkline.protocols import Assignment
from trunkline.types import SandboxAct

INHERITED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
"""The host's variables that a command gets; everything else (keys, proxies, virtual environments) stays here."""
_NOT_EXECUTABLE = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENOEXEC)
_LIMITS = Limits(stdout_head=MAX_ANSWER_BYTES, stderr_tail=STDERR_TAIL_BYTES)


class UnsafeCommandAgent:
    """Runs a command once per attempt, in a fresh directory, told as program.py says; PATH and the other names of INHERITED as they are.

    Paths in the command should be absolute, for it runs elsewhere. Cancelling `run` ends the command with its whole process
    group and all descendants that can be found (process_tree.py).

    >>> agent = UnsafeCommandAgent(("python", "/srv/agents/openai_agent.py", "--stream"))
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)

    async def run(self, assignment: Assignment) -> str:
        """The answer.

        Raises:
            AgentError: the command failed; with the end of its stderr.
            ConfigError: there is no such command, or the task gives a workspace.
            InfraError: it could not be started.
        """
        refuse_workspace(assignment)
        assignment.acts.append(SandboxAct("unsafe", "runs on this host, as this user, with nothing to hold it: " + " ".join(self._command)))
        try:
            async with serve_tools(assignment.tools, on_call=lambda use: assignment.acts.append(act_of(use))) as tools:
                folder = tempfile.TemporaryDirectory(prefix="trunkline-attempt-", ignore_cleanup_errors=True)
                try:
                    environment = _prepare(Path(folder.name), assignment, tools)
                    ended = await self._started(Path(folder.name) / "home", environment)
                finally:
                    await asyncio.to_thread(folder.cleanup)
        except OSError as error:  # no descriptor, process, memory or disk space is left
            raise InfraError(f"cannot start {self._command[0]!r} for an attempt: {error}") from error
        if ended.status != 0:
            hidden = (assignment.base_url, assignment.api_key, tools.key)
            raise AgentError(complaint(self._command[0], ended.status, ended.stderr, hidden=hidden))
        return answer_of(ended.stdout, ended.num_stdout)

    async def _started(self, cwd: Path, environment: dict[str, str]) -> Ended:
        try:
            return await run_to_end(self._command, cwd=cwd, environment=environment, limits=_LIMITS)
        except OSError as error:
            if error.errno not in _NOT_EXECUTABLE:
                raise
            raise ConfigError(
                f"cannot run {self._command[0]!r} ({error.strerror}); give an executable's absolute path, or a name on PATH"
            ) from error


def _prepare(folder: Path, assignment: Assignment, tools: ToolDoor) -> dict[str, str]:
    """Fills the attempt's directory and returns the command's whole environment."""
    home, scratch, task = folder / "home", folder / "tmp", folder / "task.json"
    home.mkdir()
    scratch.mkdir()
    task.write_bytes(task_file(assignment, tools))
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    own = {"HOME": str(home), "TMPDIR": str(scratch), "TRUNKLINE_TASK": str(task), MARK: secrets.token_hex(16)}
    return inherited | model_environment(assignment, base_url=assignment.base_url) | own
