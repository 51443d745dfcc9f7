"""What Python a verdict runs under: an interpreter without site packages, pytest and a clock that can be moved. Owns no test.

    a task with environment/python.toml: the Python and the packages that it locks (tasks/environments) ──┐
    else: installed pytest, time-machine and all that they need, copied once out of our own environment ──┴─► CACHE/environments/DIGEST

So nothing else of this host is in reach of what is judged.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import platform
import py_compile
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Protocol

from packaging.requirements import Requirement

from trunkline.errors import ConfigError, TaskError
from trunkline.home import cache_home
from trunkline.protocols import SealedSandboxes
from trunkline.tasks.environments.install import PACKAGES, PROJECT, Installed, install, name_of, shown_interpreter
from trunkline.tasks.environments.interpreters import interpreter_of
from trunkline.tasks.environments.landing import landing, mark_used
from trunkline.tasks.environments.lock import lock_of
from trunkline.types import SandboxLimits

PROGRAMS = "/verdict/programs"
_WANTED = ("pytest", "time-machine")
_LAYOUT = 1
"""Raised when what is written of the same packages changes."""


class ScriptEnvironment(Protocol):
    """What a task's own script finds: `PythonEnvironment`, or Node with packages (tasks/environments/javascript)."""

    @property
    def shown(self) -> tuple[tuple[Path, str], ...]:
        """What a sealed run has to show, read-only."""
        ...

    @property
    def script_variables(self) -> Mapping[str, str]:
        """With which the script finds it."""
        ...

    @property
    def modules(self) -> frozenset[str]:
        """Top-level names of modules; nobody else's may be called so."""
        ...

    @property
    def limits(self) -> SandboxLimits | None:
        """Of a run whose task names none; None: the backend's."""
        ...


@dataclass(frozen=True)
class PythonEnvironment:
    """An interpreter and its packages, as they are seen inside a sealed sandbox. Implements `ScriptEnvironment`."""

    python: str
    """The interpreter, inside."""
    shown: tuple[tuple[Path, str], ...]
    """What a sealed run has to show, read-only: the packages and our programs."""
    packages: tuple[str, ...]
    """Directories inside that belong on sys.path."""
    digest: str
    """SHA-256 over the interpreter's version and the content of all packages."""
    modules: frozenset[str] = frozenset()
    """Top-level names of the packages; nobody else's module may be called so."""
    version: tuple[int, int] = (sys.version_info.major, sys.version_info.minor)
    """Of the interpreter."""
    variables: tuple[tuple[str, str], ...] = ()
    """That the tests run with, beside our own."""

    def argv(self, program: str, argument: str) -> tuple[str, ...]:
        """The command that runs one of our programs: no variables, no site packages, no start-up files, nothing written."""
        return (self.python, "-I", "-S", "-B", f"{PROGRAMS}/{program}.py", argument)

    @property
    def script_variables(self) -> Mapping[str, str]:
        """See `ScriptEnvironment`: `python3 -m pytest` works."""
        path = f"{os.path.dirname(self.python)}:/usr/local/bin:/usr/bin:/bin"
        return {"PYTHONPATH": ":".join(self.packages), "PATH": path}

    @property
    def limits(self) -> SandboxLimits | None:
        """See `ScriptEnvironment`."""
        return None


async def environment_of(folder: Path, sandboxes: SealedSandboxes) -> PythonEnvironment:
    """That of the task in this folder: its own, which is made if it is not here yet (seconds), or ours.

    Raises TaskError if this host has no such Python, or a package is not what the lock says; ConfigError, InfraError, SandboxError.
    """
    lock = await asyncio.to_thread(lock_of, folder)
    if lock is None:
        return await asyncio.to_thread(verdict_environment)
    return await asyncio.to_thread(environment_from, await install(lock, sandboxes))


def environment_key(folder: Path) -> str:
    """Tells the environments of tasks apart; makes none, and needs none of its Pythons. Raises TaskError for a broken lock, ConfigError."""
    lock = lock_of(folder)
    if lock is None:
        return verdict_environment().digest
    try:
        return name_of(lock, interpreter_of(lock.python))
    except TaskError:
        return f"{lock.digest}-nowhere"


def environment_from(installed: Installed) -> PythonEnvironment:
    """What is installed, as verdicts run under it."""
    programs = (Path(__file__).parent / "programs", PROGRAMS)
    names = {path.name.partition(".")[0] for path in installed.packages.iterdir() if not path.name.endswith(".dist-info")}
    return PythonEnvironment(
        python=str(installed.interpreter.python),
        shown=((installed.packages, PACKAGES), (installed.project, PROJECT), programs, *shown_interpreter(installed.interpreter)),
        packages=(PACKAGES, PROJECT),
        digest=name_of(installed.lock, installed.interpreter),
        modules=frozenset(names - {"__pycache__"}),
        version=installed.interpreter.minor,
        variables=tuple(sorted(installed.lock.variables.items())),
    )


def verdict_environment() -> PythonEnvironment:
    """That of this Python; copied at first use (about a second), then found. Raises ConfigError: a package is not installed; InfraError."""
    return _environment(cache_home())


@functools.lru_cache(maxsize=4)
def _environment(home: Path) -> PythonEnvironment:
    files = _package_files()
    digest = _digest(files)
    folder = home / "environments" / digest
    if not folder.is_dir():
        _write(folder, files)
    mark_used(folder)
    return PythonEnvironment(
        python=f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}",
        shown=((folder, PACKAGES), (Path(__file__).parent / "programs", PROGRAMS)),
        packages=(PACKAGES,),
        digest=digest,
        modules=frozenset(name.partition("/")[0].partition(".")[0] for name in files),
    )


def _package_files() -> dict[str, Path]:
    """Path in the copy to the installed file: what can be imported, without scripts, metadata and compiled copies."""
    files: dict[str, Path] = {}
    for found in _closure():
        name, num_before = found.metadata["Name"], len(files)
        for file in found.files or ():
            if ".." in file.parts or "__pycache__" in file.parts or file.parts[0].endswith((".dist-info", ".egg-info")):
                continue
            place = Path(str(file.locate()))
            if place.suffix == ".pth" or not place.is_file():
                raise ConfigError(f"{name} is not installed in full ({place}); install it again with pip, not as an editable package")
            files[file.as_posix()] = place
        if len(files) == num_before:
            raise ConfigError(f"nothing says which files {name} consists of; install it again with pip")
    return dict(sorted(files.items()))


def _closure() -> list[Distribution]:
    """pytest, time-machine and what they require here, each once."""
    found: dict[str, Distribution] = {}
    wanted = list(_WANTED)
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            raise ConfigError(f"verdicts on software tasks need the package {name}, which is not installed; pip install {name}") from None
        requirements = map(Requirement, found[name].requires or ())
        wanted += [need.name for need in requirements if need.marker is None or need.marker.evaluate({"extra": ""})]
    return [found[name] for name in sorted(found)]


def _digest(files: dict[str, Path]) -> str:
    python = f"{sys.implementation.cache_tag} {platform.python_version()} {platform.system()} {platform.machine()} layout {_LAYOUT}\n"
    digest = hashlib.sha256(python.encode())
    for name, place in files.items():
        content = place.read_bytes()
        digest.update(f"{len(name)} {name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _write(folder: Path, files: dict[str, Path]) -> None:
    """Raises InfraError."""
    with landing(folder) as new:
        for name, place in files.items():
            target = new / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place, target)
            if target.suffix == ".py":
                # Never looked at again: the times of the copy say nothing, and nobody inside can write a new one.
                py_compile.compile(str(target), quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
