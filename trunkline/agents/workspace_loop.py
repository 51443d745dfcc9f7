"""The white-box loop on a task's directory: a sandbox an attempt, for its tools alone. Owns its life; loop and tools are their files'.

tool loop (this process) ── model over HTTP
    └── workspace tools ─► edits in memory ─► first run of the tests: a sandbox ─► how it was left ─► assignment.changes
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import replace
from pathlib import Path

from trunkline.agents.handover import then_end
from trunkline.agents.prepared import PreparedWorkspaces
from trunkline.agents.tool_loop import ToolLoop
from trunkline.agents.workspace_config import WorkspaceConfig
from trunkline.agents.workspace_place import WorkspacePlace
from trunkline.agents.workspace_tools import WorkspaceTools
from trunkline.kept import KeptTexts, key_of
from trunkline.protocols import Assignment, Sandboxes, Surroundings


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
        remember = config.remember_tests
        self._remembered = KeptTexts.open(remember if isinstance(remember, Path) else None) if remember else None
        self._digests: dict[Path, str] = {}
        self._turn = asyncio.Semaphore(max(1, len(os.sched_getaffinity(0))))

    async def run(self, assignment: Assignment) -> str:
        """The answer; how the workspace was left is in `assignment.changes`, also if this raises or is cancelled.

        Raises what the tool loop raises; LimitExceeded if the sandbox spent a limit; SandboxError if there is none, or nobody can
        read how the workspace was left.
        """
        if assignment.workspace is None:
            return await self._loop.run(assignment)
        place = WorkspacePlace(self._sandboxes, self._prepared, assignment)
        start = "" if self._remembered is None else await self._start_of(assignment.workspace, assignment.surroundings)
        test_command, others = assignment.surroundings.test_command, assignment.tools
        tools = WorkspaceTools(
            self._config, place, test_command=test_command, others=others, remembered=self._remembered, start=start, turn=self._turn
        )
        try:
            return await then_end(self._loop.run(replace(assignment, tools=tools, workspace=None)), lambda: place.made, assignment)
        finally:
            if place.made is None:
                place.hand_over()

    async def discard(self) -> None:
        """Removes the workspaces that it prepared; no attempt is at work any more. Raises SandboxError."""
        await self._prepared.discard()

    async def _start_of(self, workspace: Path, surroundings: Surroundings) -> str:
        """Names what an attempt starts from by its content: other runs may have it elsewhere."""
        if workspace not in self._digests:
            self._digests[workspace] = await asyncio.to_thread(_tree_digest, workspace)
        shown = [[str(source), place] for source, place in surroundings.shown]
        return key_of(self._digests[workspace], shown, dict(surroundings.variables))


def _tree_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found = path.lstat()
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        digest.update(repr((path.relative_to(folder).as_posix(), found.st_mode, len(content))).encode())
        digest.update(content)
    return digest.hexdigest()
