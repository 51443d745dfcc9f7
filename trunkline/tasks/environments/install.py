"""From a lock to a directory of packages: fetched on this host, unpacked in a sealed sandbox without a network. Owns no choice of packages.

    lock ─► files by hash (downloads.py) ─► sandbox: uv pip install --offline, compiled ─► CACHE/environments/DIGEST, read-only
         └► the project's metadata ─────────────────────────────────────────────────────► CACHE/environments/project-DIGEST

Nothing else of the project itself is in it. Locks with the same packages share them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trunkline.errors import TaskError
from trunkline.home import cache_home
from trunkline.protocols import SealedSandboxes
from trunkline.tasks.environments.downloads import fetch_all
from trunkline.tasks.environments.interpreters import Interpreter, interpreter_of, uv_program
from trunkline.tasks.environments.landing import landing, mark_used
from trunkline.tasks.environments.lock import PythonLock
from trunkline.types import Command, FileChange, SealedResult, SealedRun

PACKAGES = "/verdict/packages"
PROJECT = "/verdict/project"
_FILES = "/verdict/files"
_UV = "/verdict/uv"
_TIMEOUT_S = 300.0
_SETTINGS = {
    "UV_OFFLINE": "1", "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_CACHE": "1", "UV_LINK_MODE": "copy",
    "UV_NO_PROGRESS": "1",
}  # fmt: skip
_DROPPED = frozenset({"bin", ".lock"})
"""What an installation leaves beside packages: scripts that name an interpreter which is no more."""


@dataclass(frozen=True)
class Installed:
    """A Python environment on this host."""

    interpreter: Interpreter
    """Its Python."""
    packages: Path
    """The directory with its packages, at /verdict/packages inside: compiled files name that."""
    project: Path
    """The directory with the project's metadata, at /verdict/project inside; it may be empty."""
    lock: PythonLock
    """What it was made of."""


async def install(lock: PythonLock, sandboxes: SealedSandboxes) -> Installed:
    """Makes it, or finds it.

    Raises:
        TaskError: this host has no such Python, a file is not what its hash says, or it cannot be installed; what the installer said.
        InfraError: a file cannot be fetched, or nothing can be written.
        SandboxError: no sandbox.
    """
    interpreter = await asyncio.to_thread(interpreter_of, lock.python)
    home = cache_home() / "environments"
    packages = home / f"{lock.packages_digest}-{interpreter.version}"
    if not await asyncio.to_thread(packages.is_dir):
        files = await fetch_all(lock.files)
        collected = await _unpack(lock, interpreter, files, sandboxes)
        kept = {change.path: change.content for change in collected if change.kind == "file" and _is_kept(change.path)}
        await asyncio.to_thread(_land, packages, kept)
    metadata = {name: text.encode() for name, text in lock.project.files().items()}
    project = home / f"project-{hashlib.sha256(repr(sorted(metadata.items())).encode()).hexdigest()}"
    if not await asyncio.to_thread(project.is_dir):
        await asyncio.to_thread(_land, project, metadata)
    mark_used(packages, project)
    return Installed(interpreter, packages, project, lock)


def name_of(lock: PythonLock, interpreter: Interpreter) -> str:
    """Tells one environment from another, whether it is installed or not."""
    return f"{lock.digest}-{interpreter.version}"


async def _unpack(
    lock: PythonLock, interpreter: Interpreter, files: Mapping[str, Path], sandboxes: SealedSandboxes
) -> tuple[FileChange, ...]:
    with tempfile.TemporaryDirectory(prefix="trunkline-install-") as scratch:
        shelf = Path(scratch) / "files"
        await asyncio.to_thread(_shelve, shelf, files)
        result = await sandboxes.run_sealed(
            SealedRun(
                Command.shell(_script(lock, interpreter), cwd="/tmp", environment=_SETTINGS, timeout_s=_TIMEOUT_S),
                shown=((shelf, _FILES), (Path(uv_program()), _UV), *shown_interpreter(interpreter)),
                collects=PACKAGES,
            )
        )
    if result.command.status or result.spent:
        raise TaskError(f"the packages of an environment for Python {lock.python} cannot be installed: {_last_words(result)}")
    return result.collected


def shown_interpreter(interpreter: Interpreter) -> tuple[tuple[Path, str], ...]:
    """What a sandbox has to show so that it is there; what is in /usr is there anyway."""
    return () if interpreter.prefix == Path("/usr") else ((interpreter.prefix, str(interpreter.prefix)),)


def _script(lock: PythonLock, interpreter: Interpreter) -> str:
    """Compiled files are never looked at again: times of files say nothing here, and nobody inside can write new ones."""
    python = shlex.quote(str(interpreter.python))
    built = [f"{_FILES}/{one.file}" for one in lock.files]
    names = " ".join(shlex.quote(name) for name in built)
    install = f"{_UV} pip install --no-deps --no-index --find-links {_FILES} --python {python} --target {PACKAGES} {names}"
    compile_all = f"{python} -I -S -m compileall -q --invalidation-mode unchecked-hash {PACKAGES} >/dev/null 2>&1 || true"
    return f"set -e; {install if names else 'true'}; {compile_all}"


def _shelve(shelf: Path, files: Mapping[str, Path]) -> None:
    """All files in one directory, under their names."""
    shelf.mkdir()
    shelf.chmod(0o755)
    for name, path in files.items():
        try:
            os.link(path, shelf / name)
        except OSError:
            (shelf / name).write_bytes(path.read_bytes())
            (shelf / name).chmod(0o644)


def _land(folder: Path, content: Mapping[str, bytes]) -> None:
    with landing(folder) as new:
        for name, own in content.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(own)


def _is_kept(path: str) -> bool:
    return PurePosixPath(path).parts[0] not in _DROPPED


def _last_words(result: SealedResult) -> str:
    ended = result.spent or ("it took too long" if result.command.is_timeout else "")
    said = (result.command.stderr or result.command.stdout).decode(errors="replace").strip()[-1500:]
    return f"{ended} {said}".strip()
