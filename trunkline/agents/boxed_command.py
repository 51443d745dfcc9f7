"""The black-box agent in a sandbox: any command, with doors to the model and to its tools alone. Owns no sandbox's making.

sandbox: ───────────────────────────────┐
  127.0.0.1:8700  door 'model' ──► gateway's Unix socket
  127.0.0.1:8701  door 'tools' ──► tool server of this attempt (HTTP and MCP)
  anything else   connection refused
  /workspace      what the task gives; how it was left is read before the sandbox goes, however the attempt ends
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from trunkline.agents.handover import then_end
from trunkline.agents.launch import Launch, Launcher, Places, read_answer
from trunkline.agents.prepared import PreparedWorkspaces
from trunkline.agents.program import act_of, complaint, model_environment, prompt_text, task_file
from trunkline.agents.tool_server import ToolDoor, serve_tools
from trunkline.errors import AgentError, CommandNotStarted, ConfigError
from trunkline.protocols import Assignment, Sandbox, Sandboxes, Workspace
from trunkline.sandbox.host import WORKSPACE
from trunkline.sandbox.proxy import AllowedHosts, serve_proxy
from trunkline.types import Command, Door, SandboxAct

MODEL_PORT = 8700
TOOLS_PORT = 8701
PROXY_PORT = 8702
_TASK_PATH = "/home/agent/.trunkline/task.json"
_PROMPT_PATH = "/home/agent/.trunkline/prompt.txt"


class CommandAgent:
    """Runs a command once per attempt, in a sandbox of its own, told as program.py says and as its launcher adds.

    What the command names must be visible inside: the recipe's `sandbox.toolchain`, this Python, /usr. An attempt that is
    cancelled, or whose sandbox spends a limit, ends with everything that it started.

    Args:
        launcher: the command, its files and where its answer lies; PlainCommand for one that needs no more than program.py.
        sandboxes: the backend.
        workspace: where attempts start whose task gives no directory.
        gateway: the Unix socket where the gateway serves agents.
        allowed_hosts: what the command reaches by HTTP_PROXY and HTTPS_PROXY; None for no proxy.

    >>> command = PlainCommand(("python3", "/srv/agents/openai_agent.py"))
    >>> agent = CommandAgent(command, sandboxes, await sandboxes.prepare(None), gateway=socket)
    """

    def __init__(
        self,
        launcher: Launcher,
        sandboxes: Sandboxes,
        workspace: Workspace,
        *,
        gateway: Path,
        allowed_hosts: AllowedHosts | None = None,
    ) -> None:
        self._launcher = launcher
        self._sandboxes = sandboxes
        self._workspace = workspace
        self._prepared = PreparedWorkspaces(sandboxes)
        self._gateway = gateway
        self._allowed_hosts = allowed_hosts

    async def run(self, assignment: Assignment) -> str:
        """The answer; how the workspace was left is in `assignment.changes`, also if this raises or is cancelled.

        Raises:
            AgentError: the command failed, with the end of its stderr; or its answer is not where it should be.
            LimitExceeded: its sandbox spent a limit, or it changed more than MAX_CHANGES_BYTES of its workspace.
            ConfigError: there is no such command in the sandbox.
            SandboxError: there is no sandbox, or nobody can read how the workspace was left; then also in place of a cancellation.
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
                start = self._workspace if assignment.workspace is None else await self._prepared.of(assignment.workspace)
                sandbox = await self._sandboxes.create(start, doors=doors, surroundings=assignment.surroundings)
                return await then_end(self._work(sandbox, assignment, tools), lambda: sandbox, assignment)

    async def discard(self) -> None:
        """Removes the workspaces that it prepared; no attempt is at work any more. Raises SandboxError."""
        await self._prepared.discard()

    async def _work(self, sandbox: Sandbox, assignment: Assignment, tools: ToolDoor) -> str:
        await sandbox.files.write(_TASK_PATH, task_file(assignment, tools), mode=0o600)
        places = _places(assignment, tools)
        launch = self._launcher.launch(places)
        for path, text in launch.files.items():
            await sandbox.files.write(path, text.encode(), mode=0o600)
        try:
            result = await sandbox.run(self._command(launch, model_environment(assignment, base_url=places.base_url)))
        except CommandNotStarted as error:
            raise ConfigError(f"{error}; inside are sandbox.toolchain, this Python and /usr, and nothing else of this host") from error
        if result.status != 0:
            hidden = (assignment.api_key, tools.key)
            raise AgentError(complaint(launch.argv[0], result.status, result.stderr, hidden=hidden, stdout=result.stdout))
        return await read_answer(launch.answer, sandbox, result)

    def _command(self, launch: Launch, model: Mapping[str, str]) -> Command:
        environment = {**model, "TRUNKLINE_TASK": _TASK_PATH, **self._proxy_environment(), **launch.environment}
        return Command(launch.argv, environment=environment, stdin=launch.stdin.encode(), max_output_bytes=launch.max_output_bytes)

    def _proxy_environment(self) -> dict[str, str]:
        if self._allowed_hosts is None:
            return {}
        proxy, own = f"http://127.0.0.1:{PROXY_PORT}", "127.0.0.1,localhost"
        names = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": own}
        return names | {name.lower(): value for name, value in names.items()}


def _places(assignment: Assignment, tools: ToolDoor) -> Places:
    return Places(
        base_url=f"http://127.0.0.1:{MODEL_PORT}{urlsplit(assignment.base_url).path}",
        api_key=assignment.api_key,
        model=assignment.model,
        prompt=prompt_text(assignment),
        prompt_file=_PROMPT_PATH,
        workspace=WORKSPACE,
        task_file=_TASK_PATH,
        tools_url=tools.url,
        mcp_url=tools.mcp_url,
        tools_key=tools.key,
    )
