"""From requirements and a date to the files of an environment, on this host and building nothing. Owns no download.

    requirements, cutoff, interpreter ─► uv pip compile ─► pylock ─► one wheel a package that fits ─► LockedFile…

What tests are run with (pytest and what it needs, the clock that can be moved) may be younger than the cutoff: old ones do not run here.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
import os
import platform
import re
import tempfile
import tomllib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from packaging import tags
from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from pydantic import TypeAdapter

from trunkline.home import cache_home
from trunkline.tasks.environments.interpreters import RELEASED, Interpreter, uv_environment, uv_program
from trunkline.tasks.environments.lock import LockedFile

_RUNNER = ("pytest", "pluggy", "iniconfig", "packaging", "exceptiongroup", "tomli", "colorama", "time-machine", "typing-extensions")
"""What may be as young as:"""
_RUNNER_UNTIL = dt.date(2023, 12, 31)
_FLOORS = ("pytest>=7.4", "pluggy>=1.2")
"""They win over whatever a project says: its pins of old ones would not run under our programs."""
CLOCK = "time-machine"
"""What held-out calls need; an environment may do without."""
_OF_PYTEST = frozenset({"pytest", "pluggy", "iniconfig", "packaging"})
_OF_OLD_PYTEST = frozenset({"exceptiongroup", "tomli"})
_NO_WHEEL = re.compile(r"(?:versions of )?([A-Za-z0-9][\w.-]*?)(?:\[[^\]]*\])?(?:[=<>!~]=?[\w.*+!]+)? ha(?:s|ve) no (?:usable )?wheels")
_WITH_WHEELS = dt.timedelta(days=800)
"""After the release of a Python: when there are wheels for it, also of packages whose authors were slow."""
_TIMEOUT_S = 180.0
_FILES = TypeAdapter(tuple[LockedFile, ...])


class Unresolved(Exception):
    """There is no such environment; the words of the resolver."""


@dataclass(frozen=True)
class Wanted:
    """What is resolved."""

    interpreter: Interpreter
    """For which Python."""
    requirements: tuple[str, ...]
    """What the project and its tests ask for."""
    pins: tuple[str, ...] = ()
    """Versions of whatever comes along."""
    cutoff: dt.date | None = None
    """The last day of which uploads count; None: all."""
    without: str = ""
    """The project itself, which is no part of its environment."""


async def resolve(wanted: Wanted) -> tuple[LockedFile, ...]:
    """The same answer for the same question, kept on disk. Raises Unresolved, TaskError if there is no uv."""
    path = cache_home() / "resolutions" / f"{_key(wanted)}.json"
    if path.is_file():
        return _FILES.validate_json(path.read_bytes())
    if part := _part_of_pytest(wanted):
        raise Unresolved(f"{part} is a part of pytest, so that its tests would test the copy that they are run with")
    loose = tuple(dict.fromkeys(map(_loosened, wanted.requirements)))
    complaint = ""
    for requirements in dict.fromkeys([(*wanted.requirements, CLOCK), (*loose, CLOCK), loose]):
        try:
            files = await _with_wheels(wanted, requirements)
        except Unresolved as error:
            complaint = complaint or str(error)
            continue
        await asyncio.to_thread(_keep, path, _FILES.dump_json(files))
        return files
    raise Unresolved(complaint)


async def _with_wheels(wanted: Wanted, requirements: Sequence[str]) -> tuple[LockedFile, ...]:
    """Packages of which there was no wheel at that time may be younger. Raises Unresolved."""
    young: set[str] = set()
    while True:
        try:
            return _chosen(await _compile(wanted, requirements, young), wanted.interpreter)
        except Unresolved as error:
            more = {canonicalize_name(name) for name in _NO_WHEEL.findall(str(error))} - young
            if not more or wanted.cutoff is None:
                raise
            young |= more


def end_of_month(date: dt.date) -> dt.date:
    """The cutoff of all changes of a month, so that neighbours share environments."""
    return (date.replace(day=1) + dt.timedelta(days=32)).replace(day=1) - dt.timedelta(days=1)


def _key(wanted: Wanted) -> str:
    day = wanted.cutoff or dt.datetime.now(dt.UTC).date()
    said = [wanted.interpreter.version, wanted.requirements, wanted.pins, day.isoformat(), wanted.without, platform.machine(), _FLOORS]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _part_of_pytest(wanted: Wanted) -> str:
    name = canonicalize_name(wanted.without)
    is_part = name in _OF_PYTEST or (name in _OF_OLD_PYTEST and wanted.interpreter.minor < (3, 11))
    return wanted.without if is_part else ""


def _loosened(text: str) -> str:
    """Without its version: a test's pins may have nothing for this Python, or contradict each other."""
    need = Requirement(text)
    extras = f"[{','.join(sorted(need.extras))}]" if need.extras else ""
    return f"{need.name}{extras}" + (f"; {need.marker}" if need.marker else "")


async def _compile(wanted: Wanted, requirements: Sequence[str], young: Collection[str]) -> dict[str, Any]:
    """Raises Unresolved."""
    with tempfile.TemporaryDirectory(prefix="trunkline-resolve-") as folder:
        files = {
            "in": ("pytest", *requirements),
            "overrides": _FLOORS,
            "constraints": wanted.pins,
            "excludes": (wanted.without,) if wanted.without else (),
        }
        for name, lines in files.items():
            (Path(folder) / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        options = ["--overrides", "overrides.txt", "--constraints", "constraints.txt", "--excludes", "excludes.txt"]
        options += ["--no-build", "--no-config", "--no-sources", "--no-header", "--no-annotate", "--no-progress", "--color", "never"]
        options += ["--python", str(wanted.interpreter.python), *_dates(wanted, young)]
        process = await asyncio.create_subprocess_exec(
            uv_program(), "pip", "compile", "in.txt", "--format", "pylock.toml", "-o", "pylock.toml", *options,
            cwd=folder, env=uv_environment(), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            _, said = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise Unresolved(f"the resolver did not end within {_TIMEOUT_S:g} s") from None
        if process.returncode:
            raise Unresolved(said.decode(errors="replace").strip())
        return tomllib.loads((Path(folder) / "pylock.toml").read_text("utf-8"))


def _dates(wanted: Wanted, young: Collection[str]) -> list[str]:
    if wanted.cutoff is None:
        return []
    until = dict.fromkeys(_RUNNER, max(wanted.cutoff, _RUNNER_UNTIL))
    until |= dict.fromkeys(sorted(young), max(wanted.cutoff, RELEASED[wanted.interpreter.minor] + _WITH_WHEELS))
    own = [option for name, day in until.items() for option in ("--exclude-newer-package", f"{name}={day}")]
    return ["--exclude-newer", wanted.cutoff.isoformat(), *own]


def _chosen(pylock: dict[str, Any], interpreter: Interpreter) -> tuple[LockedFile, ...]:
    """Raises Unresolved if a package has no wheel that fits."""
    ranks = {tag: rank for rank, tag in enumerate(_tags(interpreter))}
    found = []
    for package in pylock.get("packages", ()):
        wheels = [(rank, wheel) for wheel in package.get("wheels", ()) if (rank := _rank(wheel, ranks)) is not None]
        if not wheels:
            raise Unresolved(f"{package['name']} {package.get('version', '')} has no wheel for Python {interpreter.series} on this host")
        _, wheel = min(wheels, key=lambda pair: pair[0])
        found.append(LockedFile(name=package["name"], version=package["version"], url=wheel["url"], sha256=wheel["hashes"]["sha256"]))
    return tuple(sorted(found, key=lambda one: one.name))


def _rank(wheel: dict[str, Any], ranks: dict[tags.Tag, int]) -> int | None:
    try:
        _, _, _, fits = parse_wheel_filename(wheel.get("name") or PurePosixPath(wheel["url"]).name)
    except InvalidWheelFilename:
        return None
    return min((ranks[tag] for tag in fits if tag in ranks), default=None)


def _tags(interpreter: Interpreter) -> Iterable[tags.Tag]:
    yield from tags.cpython_tags(interpreter.minor)
    yield from tags.compatible_tags(interpreter.minor, "cp{}{}".format(*interpreter.minor))


def _keep(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    os.replace(name, path)
