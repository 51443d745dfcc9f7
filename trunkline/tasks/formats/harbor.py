"""Harbor's task directories, read and written. Owns no verdict; what of a task we honour, harbor_honoured.py says."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from pydantic import ValidationError

from trunkline.errors import TaskError
from trunkline.tasks.formats.harbor_config import SCHEMA_VERSIONS, HarborConfig

CONFIG = "task.toml"
INSTRUCTION = "instruction.md"
TEST_SCRIPT = "tests/test.sh"
SOLVE_SCRIPT = "solution/solve.sh"
DOCKERFILE = "environment/Dockerfile"
WORKSPACE = "/workspace"
"""Where a workspace lies in every sandbox of ours."""
_CANARY = re.compile(r"(<!--.*canary.*-->|#.*canary.*)", re.IGNORECASE)
"""A line that marks a benchmark's text, so that it can be found in training data; not for the agent."""


@dataclass(frozen=True)
class HarborTask:
    """A task's directory as read."""

    folder: Path
    """Where it is."""
    name: str
    """'org/name' as its [task] says, else the folder's."""
    instruction: str
    """For the agent; '' of a task of several steps."""
    config: HarborConfig
    """Its task.toml."""

    @property
    def has_dockerfile(self) -> bool:
        """Whether its environment is described as an image to build."""
        return (self.folder / DOCKERFILE).is_file()

    @property
    def needs_image(self) -> bool:
        """Whether it can run only in a container: no [metadata.trunkline] says which folder of environment/ the workspace is."""
        ours = self.config.metadata.get("trunkline")
        return not (isinstance(ours, Mapping) and ours.get("workspace"))


def read_harbor(folder: Path) -> HarborTask:
    """Reads and checks a task's directory. Raises TaskError, which names the file, the field, the value and the cure."""
    config = _read_config(folder / CONFIG)
    _check_links(folder)
    instruction = ""
    if not config.steps:
        instruction = _without_canary(read_text(folder / INSTRUCTION))
        if not instruction.strip():
            raise TaskError(f"{folder / INSTRUCTION} is empty; write what the agent is to do")
        tests = [folder / "tests" / f"test.{kind}" for kind in ("sh", "bat")]
        if not any(path.is_file() for path in tests):
            raise TaskError(f"{tests[0]} is missing; write the script that leaves its verdict in /logs/verifier/reward.txt")
    if config.environment.docker_image is None and not (folder / "environment").is_dir():
        raise TaskError(f"{folder / 'environment'} is missing, and {CONFIG} names no environment.docker_image; add one of them")
    return HarborTask(folder, config.task.name if config.task is not None else folder.name, instruction, config)


def write_harbor(folder: Path, *, instruction: str, config: HarborConfig, files: Mapping[str, bytes | str] | None = None) -> HarborTask:
    """Writes a new task's directory and reads it back. `files` by path in it; those that begin with '#!' may be executed.

    Raises TaskError if there is something already, or what was written is no task.
    """
    if folder.exists() and any(folder.iterdir()):
        raise TaskError(f"{folder} is not empty; choose a new directory")
    texts = {CONFIG: dump_config(config), INSTRUCTION: instruction.rstrip("\n") + "\n", **(files or {})}
    for name, content in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(data)
        if data.startswith(b"#!"):
            path.chmod(0o755)
    return read_harbor(folder)


def dump_config(config: HarborConfig) -> str:
    """The text of a task.toml that reads as `config`: fields at their default are left out."""
    fields = config.model_dump(exclude_none=True, exclude_defaults=True)
    return tomli_w.dumps({"schema_version": config.schema_version} | fields)


def read_text(path: Path) -> str:
    """A text file of a task. Raises TaskError."""
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise TaskError(f"cannot read {path}: {error.strerror}; every task has this file") from error
    except UnicodeDecodeError as error:
        raise TaskError(f"{path} is no UTF-8 text: {error}; save it as UTF-8") from error


def _read_config(path: Path) -> HarborConfig:
    try:
        return HarborConfig.model_validate(tomllib.loads(read_text(path)))
    except tomllib.TOMLDecodeError as error:
        raise TaskError(f"{path} is no TOML: {error}") from error
    except ValidationError as error:
        raise TaskError(f"{path}: {'; '.join(_in_words(error))}") from error


def _in_words(error: ValidationError) -> Iterator[str]:
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"] if part not in ("str", "int", "float", "ArtifactConfig")) or "the file"
        if fault["type"] == "extra_forbidden":
            yield f"{place} is no field of Harbor's format {SCHEMA_VERSIONS[-1]}, got {fault['input']!r}; remove it or correct it"
        elif fault["type"] == "missing":
            yield f"{place} is missing; add it"
        elif isinstance(fault["input"], (Mapping, list)):
            yield f"{place}: {fault['msg'].removeprefix('Value error, ')}"
        else:
            yield f"{place}: {fault['msg'].removeprefix('Value error, ')}, got {fault['input']!r}"


def _check_links(folder: Path) -> None:
    """A link that leads out of a task would bring files of this host into sandboxes."""
    top = folder.resolve()
    for where, folders, files in os.walk(folder):
        for path in (Path(where) / name for name in (*folders, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(top):
                raise TaskError(f"{path} is a link that leads out of the task; put what it leads to in its place")


def _without_canary(text: str) -> str:
    lines = text.split("\n")
    while lines and _CANARY.fullmatch(lines[0].strip()):
        del lines[0]
    return "\n".join(lines).lstrip("\n") if len(lines) < text.count("\n") + 1 else text
