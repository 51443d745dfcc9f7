"""Which packages a project gets, chosen by npm on this host from the registry's descriptions alone. Owns no archive; nothing is run.

package.json without scripts (+ the project's own lock), day ─► npm install --package-lock-only ─► package-lock.json, kept by its inputs
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import json
import os
import signal
import tempfile
from pathlib import Path

from trunkline.errors import TaskError
from trunkline.home import cache_home
from trunkline.tasks.environments.javascript.lock import NpmLock, read_lock
from trunkline.tasks.environments.javascript.node import Node, npm_environment

_TIMEOUT_S = 300.0
_LINES = 12
_NPM = (
    "npm", "install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund", "--force",
    "--omit-lockfile-registry-resolved=false", "--lockfile-version=3",
    # Packages of the registry may ask for others from anywhere: no clone and no download for those; older npm know the first only.
    "--git=no-git-here", "--allow-git=none", "--allow-remote=none", "--allow-file=none", "--allow-directory=none",
)  # fmt: skip


async def resolve(node: Node, manifest: str, *, cutoff: dt.date | None, committed: str | None = None) -> NpmLock:
    """The lock of a manifest (see `Manifest.to_resolve`): the same again if it was asked before on this host.

    Args:
        node: Whose npm.
        manifest: Text of a package.json.
        cutoff: Nothing published after this day.
        committed: Text of a package-lock.json whose versions are kept where they fit.

    Raises TaskError with npm's words if there is no such set of packages.
    """
    key = hashlib.sha256(json.dumps([manifest, str(cutoff), committed, node.registry, node.major]).encode()).hexdigest()
    kept = cache_home() / "resolved" / "npm" / f"{key}.json"
    if kept.is_file():
        return read_lock(kept.read_text("utf-8"), registry=node.registry)
    with tempfile.TemporaryDirectory(prefix="trunkline-npm-") as folder:
        (Path(folder) / "package.json").write_text(manifest, "utf-8")
        lock = Path(folder) / "package-lock.json"
        if committed is not None:
            lock.write_text(committed, "utf-8")
        # To the end of the day; npm takes a bare day as its first moment.
        before = () if cutoff is None else (f"--before={cutoff + dt.timedelta(days=1)}",)
        await _run([*_NPM, *before], Path(folder))
        if not lock.is_file():
            raise TaskError("npm wrote no package-lock.json")
        found = read_lock(lock.read_text("utf-8"), registry=node.registry)
    write_whole(kept, found.text.encode())
    return found


def write_whole(path: Path, content: bytes) -> None:
    """A file that others see whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(prefix=".new-", dir=path.parent, delete=False) as new:
        try:
            new.write(content)
            new.flush()
            os.chmod(new.name, 0o644)
            os.replace(new.name, path)
        except BaseException:
            os.unlink(new.name)
            raise


async def _run(argv: list[str], folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=folder,
        env=npm_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
    except TimeoutError:
        raise TaskError(f"npm did not choose packages within {_TIMEOUT_S:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        lines = [line for line in said.decode(errors="replace").splitlines() if line.strip() and "complete log" not in line]
        raise TaskError("npm found no packages: " + "\n".join(lines[-_LINES:]))
