"""The black-box agent in a sandbox: any command, with doors to the model and to its tools alone. Owns no sandbox's making.

sandbox: ───────────────────────────────┐
  127.0.0.1:8700  door 'model' ──► gateway's Unix socket
  127.0.0.1:8701  door 'tools' ──► tool server of this attempt (HTTP and MCP)
  anything else   connection refused
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from trunkline.agents.program import MAX_ANSWER_BYTES, act_of, answer_of, complaint, model_environment, task_file
from trunkline.agents.tool_server import serve_tools
from trunkline.errors import AgentError, CommandNotStarted, ConfigError
from trunkline.protocols import Assignment, Sandbox, Sandboxes, Workspace
from trunkline.sandbox.proxy import AllowedHosts, serve_proxy
from trunkline.types import Command, Door, SandboxAct

MODEL_PORT = 8700
TOOLS_PORT = 8701
PROXY_PORT = 8702
_TASK_PATH = "/home/agent/.trunkline/task.json"


class CommandAgent:
    """Runs a command once per attempt, in a sandbox of its own, told as program.py says.

    What the command names must be visible inside: the recipe's `sandbox.toolchain`, this Python, /usr. An attempt that is
    cancelled, or whose sandbox spends a limit, ends with everything that it started.

    Args:
        command: absolute paths, or names on the sandbox's PATH.
        sandboxes: the backend.
        workspace: where each attempt starts.
        gateway: the Unix socket where the gateway serves agents.
        allowed_hosts: what the command reaches by HTTP_PROXY and HTTPS_PROXY; None for no proxy.

    >>> agent = CommandAgent(("python3", "/srv/agents/openai_agent.py"), sandboxes, await sandboxes.prepare(None), gateway=socket)
    """

    def __init__(
        self,
        command: Sequence[str],
        sandboxes: Sandboxes,
        workspace: Workspace,
        *,
        gateway: Path,
        allowed_hosts: AllowedHosts | None = None,
    ) -> None:
        self._command = tuple(command)
        self._sandboxes = sandboxes
        self._workspace = workspace
        self._gateway = gateway
        self._allowed_hosts = allowed_hosts

    async def run(self, assignment: Assignment) -> str:
        """The answer.

        Raises:
            AgentError: the command failed; with the end of its stderr.
            LimitExceeded: its sandbox spent a limit.
            ConfigError: there is no such command in the sandbox.
            SandboxError: there is no sandbox.
        """
        acts = assignment.acts
        with tempfile.TemporaryDirectory(prefix="trunkline-door-") as folder:
            socket, base_url = Path(folder) / "tools.sock", f"http://127.0.0.1:{TOOLS_PORT}"
            doors = [Door("model", MODEL_PORT, self._gateway), Door("tools", TOOLS_PORT, socket)]
            async with contextlib.AsyncExitStack() as stack:
                serving = serve_tools(assignment.tools, socket=socket, base_url=base_url, on_call=lambda use: acts.append(act_of(use)))
                tools = await stack.enter_async_context(serving)
                if self._allowed_hosts is not None:
                    doors.append(Door("proxy", PROXY_PORT, Path(folder) / "proxy.sock"))
                    note = serve_proxy(self._allowed_hosts, doors[-1].socket, lambda words: acts.append(SandboxAct("proxy", words)))
                    await stack.enter_async_context(note)
                sandbox = await self._sandboxes.create(self._workspace, doors=doors)
                try:
                    await sandbox.files.write(_TASK_PATH, task_file(assignment, tools), mode=0o600)
                    return await self._work(sandbox, assignment, hidden=(assignment.api_key, tools.key))
                finally:
                    await asyncio.shield(sandbox.destroy())
                    acts.extend(sandbox.acts)

    async def _work(self, sandbox: Sandbox, assignment: Assignment, *, hidden: Sequence[str]) -> str:
        base_url = f"http://127.0.0.1:{MODEL_PORT}{urlsplit(assignment.base_url).path}"
        environment = {**model_environment(assignment, base_url=base_url), "TRUNKLINE_TASK": _TASK_PATH, **self._proxy_environment()}
        command = Command(self._command, environment=environment, max_output_bytes=2 * MAX_ANSWER_BYTES)
        try:
            result = await sandbox.run(command)
        except CommandNotStarted as error:
            raise ConfigError(f"{error}; inside are sandbox.toolchain, this Python and /usr, and nothing else of this host") from error
        if result.status != 0:
            raise AgentError(complaint(self._command[0], result.status, result.stderr, hidden=hidden))
        return answer_of(result.stdout, result.num_stdout)

    def _proxy_environment(self) -> dict[str, str]:
        if self._allowed_hosts is None:
            return {}
        proxy, own = f"http://127.0.0.1:{PROXY_PORT}", "127.0.0.1,localhost"
        names = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": own}
        return names | {name.lower(): value for name, value in names.items()}
