"""Which plugins of pytest a project's tests run with: what it asked for, and what its arguments need. Owns no package.

pytest loads none by itself under our programs (PYTEST_DISABLE_PLUGIN_AUTOLOAD); these are named on its command line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator
from configparser import ConfigParser
from configparser import Error as IniError
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from trunkline.tasks.environments.identity import Identity
from trunkline.tasks.environments.layout import read_ini, read_toml, strings, table

GROUP = "pytest11"
_NEVER = frozenset({"randomly", "sugar", "xdist", "timeout", "pytest_cov", "time_machine", "benchmark", "rerunfailures"})
"""Unless the project's own arguments need them: they change the order of tests, slow them, or look after whoever watches."""


@dataclass(frozen=True)
class _Known:
    """A plugin that arguments may need, though tests do not."""

    package: str
    plugin: str
    arguments: re.Pattern[str]
    """Any of the project's own."""
    ini: str = ""
    """A setting that it brings."""
    against: tuple[str, ...] = ()
    """Arguments that leave it there and idle."""


_KNOWN = (
    _Known("pytest-cov", "pytest_cov", re.compile(r"--(no-)?cov(-|=|$)"), against=("--no-cov",)),
    _Known(
        "pytest-xdist",
        "xdist",
        re.compile(r"(-n\d*|--numprocesses|--dist|--maxprocesses|--max-worker-restart)(=|$|auto)"),
        against=("-n0",),
    ),
    _Known("pytest-timeout", "timeout", re.compile(r"--timeout"), ini="timeout"),
    _Known("pytest-benchmark", "benchmark", re.compile(r"--benchmark"), against=("--benchmark-disable",)),
    _Known("pytest-rerunfailures", "rerunfailures", re.compile(r"--reruns"), against=("--reruns=0",)),
)


@dataclass(frozen=True)
class Needed:
    """What the project's own arguments of pytest need so that pytest accepts them."""

    requirements: tuple[str, ...]
    """Packages."""
    plugins: tuple[str, ...]
    """Their entry points."""
    arguments: tuple[str, ...]
    """That keep them from doing anything."""


def needed_by_arguments(tree: Path) -> Needed:
    """Reads pytest.ini, pyproject.toml, tox.ini and setup.cfg."""
    options = _options(tree)
    arguments = shlex_split(options.get("addopts", ""))
    found = [known for known in _KNOWN if any(map(known.arguments.match, arguments)) or known.ini in options]
    return Needed(
        tuple(known.package for known in found),
        tuple(known.plugin for known in found),
        tuple(argument for known in found for argument in known.against),
    )


def plugins_of(packages: Path, names: Collection[str], own: Identity) -> tuple[str, ...]:
    """Entry points of pytest plugins: of installed packages with these names, and of the project itself."""
    wanted = {canonicalize_name(name) for name in names}
    found = [name for name, entry in _entry_points(packages) if canonicalize_name(name) in wanted for name in entry]
    return tuple(dict.fromkeys([*(name for name in found if name not in _NEVER), *own.entry_points.get(GROUP, ())]))


def shlex_split(text: str) -> list[str]:
    """As a shell does; without quotes if they do not match."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _options(tree: Path) -> dict[str, str]:
    """Of pytest, from the first file that has any."""
    tables = [read_toml(tree / "pyproject.toml")]
    for place in (table(tables[0], "tool", "pytest", "ini_options"), table(tables[0], "tool", "pytest")):
        if place:
            return {
                name: " ".join(map(shlex.quote, strings(value))) if isinstance(value, list) else str(value) for name, value in place.items()
            }
    for file, section in (("pytest.ini", "pytest"), (".pytest.ini", "pytest"), ("tox.ini", "pytest"), ("setup.cfg", "tool:pytest")):
        ini = read_ini(tree / file)
        if ini.has_section(section):
            return dict(ini.items(section))
    return {}


def _entry_points(packages: Path) -> Iterator[tuple[str, Iterable[str]]]:
    """Of each installed package, the names of its plugins."""
    for path in sorted(packages.glob("*.dist-info/entry_points.txt")):
        parser = ConfigParser(interpolation=None, strict=False, delimiters=("=",))
        try:
            parser.read_string(path.read_text("utf-8"))
        except (UnicodeDecodeError, IniError):
            continue
        if parser.has_section(GROUP):
            yield path.parent.name.partition("-")[0], parser.options(GROUP)
