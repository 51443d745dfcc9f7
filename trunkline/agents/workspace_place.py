"""The workspace of one attempt as its tools see it: edits in memory until something has to run, then a sandbox. Owns no tool.

read, write ──► edits over the task's own files (nothing of the agent's runs, so nothing has to be walled in)
run the tests ─► were they run before on the same edits? ─ no ─► sandbox with the edits; from then on all is done there
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from trunkline.agents.prepared import PreparedWorkspaces
from trunkline.protocols import Assignment, Sandbox, Sandboxes
from trunkline.types import FileChange


class WorkspacePlace:
    """Files and commands of one attempt; `made` is its sandbox, None as long as it needs none."""

    def __init__(self, sandboxes: Sandboxes, prepared: PreparedWorkspaces, assignment: Assignment) -> None:
        self.made: Sandbox | None = None
        assert assignment.workspace is not None, "without one there are no tools on it"
        self._base = assignment.workspace
        self._sandboxes = sandboxes
        self._prepared = prepared
        self._assignment = assignment
        self._edits: dict[str, bytes] = {}
        self._turn = asyncio.Lock()  # sub-agents call tools beside each other

    async def read(self, path: str, *, max_bytes: int) -> bytes:
        """A file's content. Raises FileAccessError, SandboxError."""
        if self.made is None and path in self._edits:
            return self._edits[path]
        if self.made is None and _is_plain(self._base, path) and (self._base / path).stat().st_size <= max_bytes:
            return await asyncio.to_thread((self._base / path).read_bytes)
        return await (await self.sandbox()).files.read(path, max_bytes=max_bytes)

    async def write(self, path: str, content: bytes) -> None:
        """Writes a file. Raises FileAccessError, SandboxError."""
        if self.made is None and _is_plain(self._base, path):
            self._edits[path] = content
            return
        await (await self.sandbox()).files.write(path, content)

    @property
    def edits_digest(self) -> str | None:
        """Tells starts with the same edits of the same workspace from others; None once something may have run."""
        return None if self.made is not None else _digest(self._edits)

    async def sandbox(self) -> Sandbox:
        """The attempt's sandbox, with the edits. Raises SandboxError."""
        async with self._turn:
            if self.made is None:
                start = await self._prepared.of(self._base)
                self.made = await self._with_edits(await self._sandboxes.create(start, surroundings=self._assignment.surroundings))
            return self.made

    async def _with_edits(self, sandbox: Sandbox) -> Sandbox:
        """The sandbox once it has all of them; what is cut short before that has made none, and its edits are still here."""
        try:
            for path, content in self._edits.items():
                await sandbox.files.write(path, content)
        except BaseException:
            await asyncio.shield(sandbox.destroy())
            raise
        return sandbox

    def hand_over(self) -> None:
        """How the workspace was left, of an attempt that made no sandbox."""
        for path, content in sorted(self._edits.items()):
            base = self._base / path
            if base.read_bytes() != content:
                self._assignment.changes.append(FileChange(path, "file", stat.S_IMODE(base.stat().st_mode), content))


def _is_plain(base: Path, path: str) -> bool:
    """Whether it names, in the shortest way, a regular file of the task that is reached by no link."""
    parts = PurePosixPath(path).parts
    if not parts or path != "/".join(parts) or ".." in parts or "\0" in path:
        return False
    place = base
    for part in parts[:-1]:
        place = place / part
        if not _is(stat.S_ISDIR, place):
            return False
    return _is(stat.S_ISREG, base / path)


def _is(kind: Callable[[int], bool], path: Path) -> bool:
    try:
        return kind(os.lstat(path).st_mode)
    except OSError:
        return False


def _digest(edits: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for path, content in sorted(edits.items()):
        digest.update(repr((path, len(content))).encode())
        digest.update(content)
    return digest.hexdigest()
