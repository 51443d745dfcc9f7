"""Workspaces from which attempts start, each prepared once however many attempts ask at once. Owns no sandbox."""

from __future__ import annotations

import asyncio
from pathlib import Path

from trunkline.protocols import Sandboxes, Workspace


class PreparedWorkspaces:
    """Copies of directories, by path; made at first use and kept until `discard`.

    >>> workspaces = PreparedWorkspaces(sandboxes)
    >>> await sandboxes.create(await workspaces.of(Path("task/environment/workspace")))
    """

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes
        self._turns: dict[Path, asyncio.Lock] = {}
        self._made: dict[Path, Workspace] = {}

    async def of(self, source: Path) -> Workspace:
        """The workspace with this directory's content. Raises SandboxError; the next who asks tries again, also after a cancellation."""
        async with self._turns.setdefault(source, asyncio.Lock()):
            if source not in self._made:
                self._made[source] = await self._sandboxes.prepare(source)
            return self._made[source]

    async def discard(self) -> None:
        """Removes all of them; no sandbox of theirs is at work any more. Raises SandboxError."""
        while self._made:
            _, workspace = self._made.popitem()
            await self._sandboxes.discard(workspace)
