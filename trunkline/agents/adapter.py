"""Agents as data: a TOML file says how a published program is installed, started, pointed at the model and read. Owns its schema.

    [install]      who installs what, pinned
    command        the program, with placeholders: {base_url} {model} {prompt} {install} ...
    [environment]  [files]  stdin      likewise
    [answer]       where the answer lies

A placeholder is one lower-case word in single braces; doubled braces are left alone, so that other templates can stand in a file.
Installing is installation.py's.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trunkline.agents.launch import AnswerFrom, AnswerSource, Launch, Places
from trunkline.errors import AgentError, ConfigError

SHIPPED = Path(__file__).parent / "adapters"
"""One TOML file for each adapter that comes with Trunkline, named for it, and their drivers."""

_HOME = "/home/agent"
_MAX_PART_BYTES = 128 * 2**10 - 1
"""Linux holds one argument or variable to 128 KiB."""
_PLACEHOLDER = re.compile(r"(?<!\{)\{([a-z][a-z_]*)\}(?!\})")
_OF_ATTEMPT = frozenset({"root_url", *(field.name for field in fields(Places))})
_OF_HOST = frozenset({"install", "here"})
PLACEHOLDERS = tuple(sorted({*_OF_ATTEMPT, *_OF_HOST, "max_context"}))
"""install: the folder of the installation; here: the adapter file's own; max_context: the recipe's; the others are launch.Places'."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InstallSection(_Section):
    """What is installed, and by whom."""

    installer: Literal["pip", "npm"] = Field(description="pip: into a virtual environment of its own; npm: with --prefix.")
    package: str = Field(min_length=1, description="The distribution, extras included: 'pydantic-ai-slim[openai,mcp]'.")
    version: str = Field(pattern=r"^[0-9][0-9A-Za-z.+\-]*$", description="Exactly.")
    also: tuple[str, ...] = Field((), description="Others beside it, pinned likewise: 'mcp==2.3.0' (pip), 'typescript@5.9.2' (npm).")
    after: tuple[tuple[str, ...], ...] = Field(
        (), description="Commands on this host once they are there; npm's packages run no script by themselves."
    )
    check: tuple[str, ...] = Field((), description="A command on this host that ends with status 0 if the installation works.")

    @property
    def requirements(self) -> tuple[str, ...]:
        """As the installer is told."""
        return (f"{self.package}{'==' if self.installer == 'pip' else '@'}{self.version}", *self.also)

    @model_validator(mode="after")
    def _check_pins(self) -> Self:
        mark = "==" if self.installer == "pip" else "@"
        for requirement in self.also:
            name, found, version = requirement.rpartition(mark)
            if not (name and found and version[:1].isdigit()):
                raise ValueError(f"also: {requirement!r} is not pinned; write it as name{mark}version")
        return self


class AnswerSection(_Section):
    """Where the answer lies when the program has ended with status 0."""

    source: AnswerSource = Field("stdout", alias="from", description="stdout, json (a value in JSON), file, or workspace (its changes).")
    file: str = Field("", description="file, json: its path inside; json without one: stdout.")
    value: str = Field("", description="json: where the value is: 'result', 'messages.-1.content'.")

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if (self.source == "json") != bool(self.value):
            raise ValueError(f"from = {self.source!r} {'needs a value' if not self.value else 'has no value'}, got {self.value!r}")
        if self.source == "file" and not self.file:
            raise ValueError("from = 'file' needs a file, the path where the answer lies")
        if self.source in ("stdout", "workspace") and self.file:
            raise ValueError(f"from = {self.source!r} has no file, got {self.file!r}")
        return self


class AdapterFile(_Section):
    """The whole TOML file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="What a recipe calls it.")
    description: str = Field(min_length=1, description="A line: what it is, what it does here.")
    homepage: str = Field("", description="Where it comes from.")
    licence: str = Field("", description="Of the program itself, for whoever installs it.")
    wire: Literal["chat", "responses", "messages"] = Field(description="The API that it speaks with the model.")
    command: tuple[str, ...] = Field(min_length=1, description="Absolute paths, or names on the sandbox's PATH.")
    stdin: str = Field("", description="What it reads, if anything.")
    environment: dict[str, str] = Field(default_factory=dict, description="Variables beside those that every program is told.")
    files: dict[str, str] = Field(default_factory=dict, description="Text files of its home ('~/.codex/config.toml') or its workspace.")
    answer: AnswerSection = AnswerSection()
    install: InstallSection | None = Field(None, description="None: the program is there already, by sandbox.toolchain.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, text in self.templates():
            unknown = [name for name in _PLACEHOLDER.findall(text) if name not in PLACEHOLDERS]
            if unknown:
                raise ValueError(f"{key}: no placeholder {{{unknown[0]}}}; known: {', '.join(PLACEHOLDERS)} ({{{{...}}}} is left alone)")
            if self.install is None and "install" in _PLACEHOLDER.findall(text):
                raise ValueError(f"{key}: {{install}} stands for an installation, but there is no [install]")
        for key, text in self._on_host():
            wrong = [name for name in _PLACEHOLDER.findall(text) if name not in _OF_HOST]
            if wrong:
                raise ValueError(f"{key}: {{{wrong[0]}}} is known in an attempt only; installing knows {', '.join(sorted(_OF_HOST))}")
        for path in self.files:
            if not path.startswith(("~/", "{workspace}/")) or ".." in Path(path).parts:
                raise ValueError(f"files: {path!r} is neither below ~/ nor below {{workspace}}/")
        return self

    def templates(self) -> Iterator[tuple[str, str]]:
        """Every text that is filled in, with its key."""
        yield from (("command", part) for part in self.command)
        yield from ((f"environment.{name}", value) for name, value in self.environment.items())
        yield from ((f"files.{path!r}", path + text) for path, text in self.files.items())
        yield from (("stdin", self.stdin), ("answer.file", self.answer.file))
        yield from self._on_host()

    def _on_host(self) -> Iterator[tuple[str, str]]:
        if self.install is not None:
            yield from (("install.after", part) for command in self.install.after for part in command)
            yield from (("install.check", part) for part in self.install.check)


@dataclass(frozen=True)
class Adapter:
    """An adapter file, read and checked."""

    file: AdapterFile
    """What it says."""
    path: Path
    """Where it is."""

    @property
    def here(self) -> Path:
        """What {here} stands for."""
        return self.path.absolute().parent

    def own_files(self) -> tuple[Path, ...]:
        """Files beside the TOML file that its command names: drivers, which a sandbox must show."""
        named = (part.replace("{here}", str(self.here)) for part in self.file.command if "{here}" in part)
        return tuple(path for path in map(Path, named) if path.is_file())

    def for_host(self, command: tuple[str, ...], install: Path) -> tuple[str, ...]:
        """One of [install]'s commands, filled in."""
        return tuple(_filled(part, {"install": str(install), "here": str(self.here)}) for part in command)


@dataclass(frozen=True)
class InstalledAdapter:
    """An adapter with its installation: implements launch.Launcher."""

    adapter: Adapter
    """What is started."""
    install: Path | None
    """Its folder; None if it needs none."""
    max_context: int
    """Tokens of one prompt and its completion, at most: when to compact a history is the agent's business."""

    def launch(self, places: Places) -> Launch:
        """The start for one attempt. Raises AgentError if the task is too long for where the adapter puts it."""
        file = self.adapter.file
        values = {name: getattr(places, name) for name in _OF_ATTEMPT}
        values |= {"here": str(self.adapter.here), "install": str(self.install), "max_context": str(self.max_context)}
        launch = Launch(
            tuple(_filled(part, values) for part in file.command),
            {name: _filled(text, values) for name, text in file.environment.items()},
            {_inside(_filled(path, values)): _filled(text, values) for path, text in file.files.items()},
            _filled(file.stdin, values),
            AnswerFrom(file.answer.source, _inside(_filled(file.answer.file, values)), file.answer.value),
        )
        if any("{prompt_file}" in text for _, text in file.templates()):
            launch = replace(launch, files={**launch.files, places.prompt_file: places.prompt})
        for part in (*launch.argv, *launch.environment.values()):
            if "\0" in part or len(part.encode()) > _MAX_PART_BYTES:
                raise AgentError(
                    f"adapter {file.name!r} hands the task over in an argument or a variable, which takes {_MAX_PART_BYTES} bytes without "
                    f"NUL, and this one has {len(part.encode())}; use stdin or {{prompt_file}}"
                )
        return launch


def shipped_adapters() -> tuple[Adapter, ...]:
    """Those that come with Trunkline, by name."""
    return tuple(load_adapter(path) for path in sorted(SHIPPED.glob("*.toml")))


def find_adapter(name_or_path: str) -> Adapter:
    """A shipped adapter by its name, or any other by its file's path. Raises ConfigError if there is none, or it is wrong."""
    if name_or_path.endswith(".toml"):
        return load_adapter(Path(name_or_path).expanduser())
    path = SHIPPED / f"{name_or_path}.toml"
    if re.fullmatch(r"[a-z0-9-]+", name_or_path) and path.is_file():
        return load_adapter(path)
    names = sorted(path.stem for path in SHIPPED.glob("*.toml"))
    near = difflib.get_close_matches(name_or_path, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"no adapter {name_or_path!r}; {hint}shipped: {', '.join(names)}; or give the path of a .toml file")


def load_adapter(path: Path) -> Adapter:
    """Raises ConfigError: unreadable, no TOML, an unknown key (named), a bad value."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the adapter {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    try:
        return Adapter(AdapterFile.model_validate(tree), path)
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(map(_complaint, error.errors()))) from None


def _complaint(item: Mapping[str, Any]) -> str:
    key = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        sections: dict[str, type[_Section]] = {"install": InstallSection, "answer": AnswerSection}
        section = sections.get(str(item["loc"][0]), AdapterFile)
        known = [field.alias or name for name, field in section.model_fields.items()]
        return f"unknown key {key!r}; known there: {', '.join(known)}"
    if item["type"] == "missing":
        return f"{key!r} is missing"
    said = str(item["msg"]).removeprefix("Value error, ")
    return f"{key}: {said}" if key else said


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)


def _inside(path: str) -> str:
    return _HOME + path[1:] if path.startswith("~/") else path
