"""Who a project says it is: name, version and entry points, read from its files without running any. Owns no package."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, Field

from trunkline.tasks.environments.layout import import_roots, read_ini, read_toml, strings, table

_ASSIGNED = re.compile(r"^(?:__version__|version|VERSION)\s*(?::[^=\n]+)?=\s*[\"']([^\"'\n]+)[\"']", re.MULTILINE)
_OF_SETUP = re.compile(r"\bversion\s*=\s*[\"']([^\"'\n]+)[\"']")
_UNKNOWN = "0"
_PLACES = ("__init__.py", "_version.py", "__about__.py", "version.py", "__version__.py")


class Identity(BaseModel):
    """What importlib.metadata finds of a project."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("", description="In an index; '': nothing is found of it.")
    version: str = Field(_UNKNOWN, description="As it says itself.")
    entry_points: dict[str, dict[str, str]] = Field({}, description="By group.")

    def files(self) -> Mapping[str, str]:
        """Its metadata as an installed package has it, path to text."""
        if not self.name:
            return {}
        folder = f"{re.sub(r'[-_.]+', '_', self.name)}-{self.version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}\n"
        found = {f"{folder}/METADATA": metadata, f"{folder}/INSTALLER": "trunkline\n"}
        if self.entry_points:
            found[f"{folder}/entry_points.txt"] = "\n".join(_as_lines(group, own) for group, own in self.entry_points.items())
        return found


def read_identity(tree: Path, name: str) -> Identity:
    """Of a tree; `name` as its files say it."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        return Identity()
    version = next((found for found in map(_normal, _versions(tree, name)) if found), _UNKNOWN)
    return Identity(name=name, version=version, entry_points=_entry_points(tree))


def _versions(tree: Path, name: str) -> Iterator[str]:
    """What may be its version, most certain first."""
    tables = read_toml(tree / "pyproject.toml")
    yield str(table(tables, "project").get("version", ""))
    yield str(table(tables, "tool", "poetry").get("version", ""))
    yield read_ini(tree / "setup.cfg").get("metadata", "version", fallback="")
    yield from _first(_OF_SETUP, tree / "setup.py")
    for root in import_roots(tree):
        module = canonicalize_name(name).replace("-", "_")
        for folder in [tree / root / module, *sorted(path.parent for path in (tree / root).glob("*/__init__.py"))]:
            for file in _PLACES:
                yield from _first(_ASSIGNED, folder / file)
        yield from _first(_ASSIGNED, tree / root / f"{module}.py")
    yield from _first(re.compile(r"^Version: (\S+)", re.MULTILINE), tree / "PKG-INFO")


def _first(pattern: re.Pattern[str], path: Path) -> list[str]:
    try:
        return pattern.findall(path.read_text("utf-8"))[:1]
    except (OSError, UnicodeDecodeError):
        return []


def _normal(text: str) -> str:
    try:
        return str(Version(text))
    except InvalidVersion:
        return ""


def _entry_points(tree: Path) -> dict[str, dict[str, str]]:
    """Of pyproject.toml and setup.cfg; lines that could be anything else are left out."""
    tables = read_toml(tree / "pyproject.toml")
    project = table(tables, "project")
    found: dict[str, dict[str, Any]] = {group: dict(table(project, "entry-points", group)) for group in table(project, "entry-points")}
    found |= {group: dict(table(tables, "tool", "poetry", "plugins", group)) for group in table(tables, "tool", "poetry", "plugins")}
    found["console_scripts"] = dict(table(project, "scripts"))
    ini = read_ini(tree / "setup.cfg")
    if ini.has_section("options.entry_points"):
        for group in ini.options("options.entry_points"):
            lines = [line.partition("=") for line in ini.get("options.entry_points", group).splitlines() if "=" in line]
            found.setdefault(group, {}).update({name.strip(): place.strip() for name, _, place in lines})
    plain = {
        group: {name: place for name, place in own.items() if strings(place) and re.fullmatch(r"[\w.:\[\], -]+", place) and _is_word(name)}
        for group, own in found.items()
        if re.fullmatch(r"[\w.]+", group)
    }
    return {group: own for group, own in sorted(plain.items()) if own}


def _as_lines(group: str, own: Mapping[str, str]) -> str:
    return "".join([f"[{group}]\n", *(f"{name} = {place}\n" for name, place in own.items())])


def _is_word(name: str) -> bool:
    return re.fullmatch(r"[\w.-]+", name) is not None
