"""npm packages installed in a sealed sandbox without network, and kept on this host by their content. Owns no choice of packages.

lock ─► archives by hash ─► npm ci, offline, in a sealed run ─► checked ─► $TRUNKLINE_HOME/environments/DIGEST, read-only in every sandbox
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import posixpath
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from trunkline.errors import TaskError
from trunkline.home import cache_home
from trunkline.protocols import SealedSandboxes
from trunkline.tasks.environments.javascript.archives import fetch_archives, lay_archives
from trunkline.tasks.environments.javascript.lock import NpmLock
from trunkline.tasks.environments.javascript.node import Node, this_platform
from trunkline.tasks.environments.landing import landing, mark_used
from trunkline.types import Command, FileChange, SandboxLimits, SealedRun

MODULES = "/node_modules"
"""Where sandboxes see them: Node looks there from any directory, so the workspace itself stays as it is."""
_INSIDE = "node_modules"
_LAYOUT = 1
"""Raised when what is kept of the same packages changes."""
_TIMEOUT_S = 600.0
_LIMITS = SandboxLimits(memory_bytes=4 * 2**30, disk_bytes=2 * 2**30)
_WORDS = 2000
# npm's cache is in memory and empty but for the archives, which it finds by their hashes.
_SCRIPT = f"""set -e
mkdir -p /tmp/npm/_cacache && ln -s /archives /tmp/npm/_cacache/content-v2
cp /project/package.json /project/package-lock.json /out/
cd /out
npm ci --offline --no-audit --no-fund --force --no-update-notifier --cache /tmp/npm "$@"
rm package.json package-lock.json
mkdir -p {_INSIDE}
"""


async def install(node: Node, manifest: str, lock: NpmLock, sandboxes: SealedSandboxes, *, runs_scripts: bool = False) -> Path:
    """The folder with the packages, made if this host has none of this content.

    Raises TaskError with the last lines of npm's log, or naming the archive that is not what its hash says; SandboxError, InfraError.
    """
    folder = cache_home() / "environments" / environment_digest(node, manifest, lock, runs_scripts=runs_scripts)
    if folder.is_dir():
        mark_used(folder)
        return folder
    await fetch_archives(lock.packages)
    found = await _installed(node, manifest, lock, sandboxes, runs_scripts=runs_scripts)
    await asyncio.to_thread(_land, folder, found)
    return folder


def environment_digest(node: Node, manifest: str, lock: NpmLock, *, runs_scripts: bool) -> str:
    """SHA-256 of all that decides what is installed."""
    host = this_platform()
    parts = ["npm", _LAYOUT, node.major, host["os"], host["cpu"], host["libc"], manifest, lock.text, runs_scripts]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


async def _installed(node: Node, manifest: str, lock: NpmLock, sandboxes: SealedSandboxes, *, runs_scripts: bool) -> tuple[FileChange, ...]:
    store = cache_home() / "packages"
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".install-", dir=store) as scratch:  # beside the archives, so that they can be linked
        project, archives = Path(scratch) / "project", Path(scratch) / "archives"
        project.mkdir()
        (project / "package.json").write_text(manifest, "utf-8")
        (project / "package-lock.json").write_text(lock.text, "utf-8")
        await asyncio.to_thread(lay_archives, lock.packages, archives)
        for path in (project, *project.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        result = await sandboxes.run_sealed(
            SealedRun(
                Command(
                    ("/bin/sh", "-c", _SCRIPT, "sh", *([] if runs_scripts else ["--ignore-scripts"])),
                    cwd="/tmp",
                    environment={"PATH": node.search_path, "NO_COLOR": "1"},
                    timeout_s=_TIMEOUT_S,
                ),
                shown=((project, "/project"), (archives, "/archives"), *node.shown),
                collects="/out",
                limits=_LIMITS,
            )
        )
    if result.command.is_timeout or result.spent:
        raise TaskError(f"npm ci was ended: {result.spent or f'it took longer than {_TIMEOUT_S:g} s'}")
    if result.command.status:
        # Its complaint comes first, then pages of usage.
        lines = (result.command.stderr + result.command.stdout).decode(errors="replace").splitlines()
        said = "\n".join(line for line in lines if line.strip() and not line.startswith("npm warn"))
        raise TaskError(f"npm ci ended with status {result.command.status}: {said[:_WORDS]}")
    return result.collected


def _land(folder: Path, found: Iterable[FileChange]) -> None:
    with landing(folder) as new:
        for change in sorted(found, key=lambda change: change.path):
            inside = posixpath.relpath(change.path, _INSIDE)
            if change.path.startswith(f"{_INSIDE}/") and not inside.startswith(".."):
                _write(new, inside, change)


def _write(new: Path, inside: str, change: FileChange) -> None:
    """One path. What a link leads to lies within the packages, or the link is left out: nothing of this host is in reach."""
    place = new / inside
    if change.kind == "directory":
        place.mkdir(parents=True, exist_ok=True)
        return
    if change.kind not in ("file", "symlink") or any(parent.is_symlink() for parent in place.parents):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if change.kind == "file":
        place.write_bytes(change.content)
        place.chmod(0o555 if change.mode & stat.S_IXUSR else 0o444)
        return
    target = os.fsdecode(change.content)
    if not posixpath.normpath(posixpath.join(posixpath.dirname(inside), target)).startswith(("..", "/")):
        place.symlink_to(target)
