"""The white-box loop on a task's directory: a sandbox an attempt, for its tools alone. Owns its life; loop and tools are their files'.

tool loop (this process) ── model over HTTP
    └── first call of a workspace tool ─► sandbox from the task's workspace ─► ... ─► how it was left ─► assignment.changes
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from trunkline.agents.handover import then_end
from trunkline.agents.prepared import PreparedWorkspaces
from trunkline.agents.tool_loop import ToolLoop
from trunkline.agents.workspace_config import WorkspaceConfig
from trunkline.agents.workspace_tools import WorkspaceTools
from trunkline.protocols import Assignment, Sandbox, Sandboxes


class WorkspaceLoop:
    """Implements `trunkline.protocols.Agent`: the tool loop with tools on the workspace that the task gives.

    What the attempt runs runs in its sandbox, which has no door: the loop talks with the model, the sandbox never does.

    Args:
        loop: asks the model and calls the tools.
        config: which tools.
        sandboxes: the backend.

    >>> agent = WorkspaceLoop(ToolLoop(http, settings), WorkspaceConfig(tools=("read", "replace", "run_tests")), sandboxes)
    """

    def __init__(self, loop: ToolLoop, config: WorkspaceConfig, sandboxes: Sandboxes) -> None:
        self._loop = loop
        self._config = config
        self._sandboxes = sandboxes
        self._prepared = PreparedWorkspaces(sandboxes)

    async def run(self, assignment: Assignment) -> str:
        """The answer; how the workspace was left is in `assignment.changes`, also if this raises or is cancelled.

        Raises what the tool loop raises; LimitExceeded if the sandbox spent a limit; SandboxError if there is none, or nobody can
        read how the workspace was left.
        """
        if assignment.workspace is None:
            return await self._loop.run(assignment)
        place = _Place(self._sandboxes, self._prepared, assignment)
        tools = WorkspaceTools(self._config, place.sandbox, test_command=assignment.surroundings.test_command, others=assignment.tools)
        return await then_end(self._loop.run(replace(assignment, tools=tools, workspace=None)), lambda: place.made, assignment)

    async def discard(self) -> None:
        """Removes the workspaces that it prepared; no attempt is at work any more. Raises SandboxError."""
        await self._prepared.discard()


class _Place:
    """One attempt's sandbox, made when it is first needed: an attempt that answers at once has none."""

    def __init__(self, sandboxes: Sandboxes, prepared: PreparedWorkspaces, assignment: Assignment) -> None:
        self.made: Sandbox | None = None
        self._sandboxes = sandboxes
        self._prepared = prepared
        self._assignment = assignment
        self._turn = asyncio.Lock()  # sub-agents call tools beside each other

    async def sandbox(self) -> Sandbox:
        """Raises SandboxError."""
        async with self._turn:
            if self.made is None:
                assert self._assignment.workspace is not None, "without one there are no tools on it"
                start = await self._prepared.of(self._assignment.workspace)
                self.made = await self._sandboxes.create(start, surroundings=self._assignment.surroundings)
            return self.made
