"""What Python a verdict runs under: an interpreter without site packages, pytest and a clock that can be moved. Owns no test.

The packages are copied once out of the environment that Trunkline runs in, so that nothing else of it is in reach of what is judged:

    installed pytest, time-machine and all that they need ──► CACHE/environments/DIGEST/ ──► /verdict/packages, read-only
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import py_compile
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from trunkline.errors import ConfigError
from trunkline.home import cache_home

PACKAGES = "/verdict/packages"
PROGRAMS = "/verdict/programs"
_WANTED = ("pytest", "time-machine")
_LAYOUT = 1
"""Raised when what is written of the same packages changes."""


@dataclass(frozen=True)
class PythonEnvironment:
    """An interpreter and its packages, as they are seen inside a sealed sandbox."""

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

    def argv(self, program: str, argument: str) -> tuple[str, ...]:
        """The command that runs one of our programs: no variables, no site packages, no start-up files, nothing written."""
        return (self.python, "-I", "-S", "-B", f"{PROGRAMS}/{program}.py", argument)


def verdict_environment() -> PythonEnvironment:
    """That of this Python; copied at first use (about a second), then found. Raises ConfigError if a package is not installed."""
    return _environment(cache_home())


@functools.lru_cache(maxsize=4)
def _environment(home: Path) -> PythonEnvironment:
    files = _package_files()
    digest = _digest(files)
    folder = home / "environments" / digest
    if not folder.is_dir():
        _write(folder, files)
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
    """Whole or not at all: another process may write the same at the same time, and the first one to finish wins. Raises ConfigError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as scratch:
            new = Path(scratch) / "packages"
            for name, place in files.items():
                target = new / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(place, target)
                if target.suffix == ".py":
                    # Never looked at again: the times of the copy say nothing, and nobody inside can write a new one.
                    py_compile.compile(str(target), quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
            for path in new.rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o444)
            new.chmod(0o755)
            try:
                os.rename(new, folder)
            except OSError:
                if not folder.is_dir():
                    raise
    except OSError as error:
        raise ConfigError(f"cannot copy pytest into {folder.parent}: {error}; set TRUNKLINE_HOME to a writable directory") from error
