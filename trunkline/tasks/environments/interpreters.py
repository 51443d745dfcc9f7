"""Which Pythons this host has, and which of them a project of some date was written for. Owns no package and installs nothing."""

from __future__ import annotations

import datetime as dt
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from trunkline.errors import TaskError

RELEASED = {
    (3, 8): dt.date(2019, 10, 14),
    (3, 9): dt.date(2020, 10, 5),
    (3, 10): dt.date(2021, 10, 4),
    (3, 11): dt.date(2022, 10, 24),
    (3, 12): dt.date(2023, 10, 2),
    (3, 13): dt.date(2024, 10, 7),
    (3, 14): dt.date(2025, 10, 7),
}
"""Of those that tests can run under."""
_SETTLED = dt.timedelta(days=180)
"""After a release: until then projects and what they need are not ready for it."""
_TIMEOUT_S = 60.0
_ASK = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, sys.version.split()[0], sys.implementation.name]))"


@dataclass(frozen=True)
class Interpreter:
    """A Python of this host, with its standard library."""

    version: str
    """In full, such as '3.9.18'."""
    prefix: Path
    """The directory that holds all of it."""

    @property
    def minor(self) -> tuple[int, int]:
        """(3, 9)."""
        major, minor, *_ = self.version.split(".")
        return int(major), int(minor)

    @property
    def series(self) -> str:
        """'3.9'."""
        return "{}.{}".format(*self.minor)

    @property
    def python(self) -> Path:
        """The program."""
        return self.prefix / "bin" / f"python{self.series}"


def own_interpreter() -> Interpreter:
    """The one that Trunkline runs under, without its virtual environment."""
    return Interpreter("{}.{}.{}".format(*sys.version_info[:3]), Path(sys.base_prefix))


@functools.cache
def interpreters() -> tuple[Interpreter, ...]:
    """All from 3.8 on, one a series, oldest first; of the series that we run under, our own."""
    found = {own.minor: own for own in (own_interpreter(),)}
    for one in sorted(_installed(), key=lambda one: [int(part) for part in one.version.split(".")], reverse=True):
        found.setdefault(one.minor, one)
    return tuple(found[minor] for minor in sorted(found) if minor in RELEASED)


def interpreter_of(series: str) -> Interpreter:
    """That of a series such as '3.9'. Raises TaskError if this host has none, with what to do."""
    for one in interpreters():
        if one.series == series:
            return one
    have = ", ".join(one.series for one in interpreters())
    raise TaskError(f"Python {series} is needed and not on this host, which has {have}; install it with: uv python install {series}")


def era_interpreter(date: dt.date, requires_python: str = "", among: Sequence[Interpreter] | None = None) -> Interpreter | None:
    """The newest that had been out for half a year and that the project allows; else the oldest that it allows; None if it allows none."""
    allowed = [one for one in (interpreters() if among is None else among) if allows(requires_python, one.version)]
    settled = [one for one in allowed if RELEASED[one.minor] + _SETTLED <= date]
    return settled[-1] if settled else allowed[0] if allowed else None


def allows(requires_python: str, version: str) -> bool:
    """Whether a project may run under a version; one whose demand cannot be read may."""
    try:
        return SpecifierSet(requires_python).contains(version, prereleases=True)
    except InvalidSpecifier:
        return True


def uv_program() -> str:
    """The path of uv. Raises TaskError if it is not installed."""
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        raise TaskError("environments of projects are resolved and installed by uv, which is not installed; pip install uv") from None


def uv_environment() -> dict[str, str]:
    """The variables that uv is run with on this host: it fetches no Python by itself, and finds those of pyenv, of whatever version."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    path = [part for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if Path(part) != root / "shims"]
    own = sorted(str(folder) for folder in root.glob("versions/3.*/bin"))
    return {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "PATH": os.pathsep.join([*path, *own])}


def _installed() -> Iterator[Interpreter]:
    command = [uv_program(), "python", "list", "--only-installed", "--offline", "--no-config", "--output-format", "json"]
    ran = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, env=uv_environment(), check=False)
    if ran.returncode:
        return
    paths = {Path(one["path"]).resolve() for one in json.loads(ran.stdout) if one.get("implementation") == "cpython"}
    for path in sorted(paths):
        asked = subprocess.run([str(path), "-I", "-S", "-c", _ASK], capture_output=True, timeout=_TIMEOUT_S, check=False)
        if asked.returncode:
            continue
        prefix, base, version, name = json.loads(asked.stdout)
        one = Interpreter(version, Path(base))
        if prefix == base and name == "cpython" and one.python.exists():
            yield one
