"""SWE-bench's files: instances in and out, predictions out. Owns no task (swebench_tasks.py makes and reads those) and no verdict."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from trunkline.errors import TaskError
from trunkline.tasks.formats.git_patch import patch_of
from trunkline.types import FileChange

_NOT_USED = {
    "environment_setup_commit": "the environment is that of environment/Dockerfile",
    "eval_script": "tests run by pytest or tests/test.sh",
    "log_parser": "no log is parsed, tests report by themselves",
    "eval_type": "every test must report, also one that passes",
    "rebuild_cmds": "nothing is built before a verdict",
    "test_cmds": "tests run by pytest or tests/test.sh",
    "print_cmds": "no log is parsed",
    "install_config": "write what it installs into environment/Dockerfile",
    "interface": "it is not told to the agent; add it to instruction.md",
    "pr_description": "it is not told to the agent",
    "problem_assets": "only text is told to the agent",
    "test_assets": "put them into tests/tree",
}
_PLAIN = frozenset({"created_at", "version", "hints_text", "split", "datasets", "image", "docker_image", "image_name", "language", "meta"})
"""Fields that change nothing of a task, or are used by name."""
IMAGE_FIELDS = ("image", "docker_image", "image_name")
"""What SWE-bench, SWE-bench-Live and SWE-rebench call the image that exists."""


def _names(value: Any) -> Any:
    """Lists of tests come as JSON text in the published data set, as lists in task repositories."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(f"neither a list nor the JSON text of one, got {value[:100]!r}") from error
    return value


class SweInstance(BaseModel):
    """One instance; fields beyond these are kept as they are, whoever defined them."""

    model_config = ConfigDict(extra="allow", frozen=True)

    instance_id: str = Field(min_length=1, description="'owner__name-123'.")
    repo: str = Field(min_length=1, description="'owner/name'.")
    base_commit: str = Field(min_length=1, description="What the agent starts from.")
    patch: str = Field(description="The solution, as a diff.")
    test_patch: str = Field(description="The hidden tests, as a diff.")
    problem_statement: str = Field(min_length=1, description="What the agent is told.")
    FAIL_TO_PASS: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field(description="Tests that the solution makes pass.")
    PASS_TO_PASS: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field((), description="Tests that pass before and after.")
    hints_text: str | None = Field(None, description="Not told to the agent.")
    created_at: str | int | float | None = Field(None, description="When.")
    version: str | None = Field(None, description="Of the repository.")
    environment_setup_commit: str | None = Field(None, description="Whose dependencies it has.")

    dockerfile: str | None = Field(None, description="How its image is built, its files in workspace/; of our own exports.")

    @property
    def further(self) -> dict[str, Any]:
        """Fields beyond SWE-bench's first, such as those of its version 5, of SWE-bench-Live and of SWE-rebench."""
        return dict(self.model_extra or {})

    @property
    def image(self) -> str | None:
        """An image that exists with its environment, if it names one."""
        return next((str(self.further[name]) for name in IMAGE_FIELDS if self.further.get(name)), None)

    def as_row(self) -> dict[str, Any]:
        """As the published data set has it: tests as JSON text, fields that were not there left out."""
        row = self.model_dump(exclude_unset=True)
        for name in ("FAIL_TO_PASS", "PASS_TO_PASS"):
            row[name] = json.dumps(list(getattr(self, name)))
        return row


@dataclass(frozen=True)
class Prediction:
    """What an agent answered to one instance."""

    instance_id: str
    """Which."""
    model_name_or_path: str
    """Who answered."""
    model_patch: str
    """Its diff; '' if it changed nothing."""


def read_instances(path: Path) -> tuple[SweInstance, ...]:
    """Those of a JSON array, of JSON lines, or the one of a JSON object. Raises TaskError, naming the place and the field."""
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"cannot read {path}: {error}; instances are a JSON array, or JSON lines") from error
    rows = list(_rows(path, text))  # all of it is JSON before any of it is looked at
    found = tuple(instance_of(row, where=where) for where, row in rows)
    if not found:
        raise TaskError(f"{path} holds no instance")
    names = [instance.instance_id for instance in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TaskError(f"{path}: instance_id {', '.join(twice)} occurs more than once; remove one")
    return found


def instance_of(row: Any, *, where: str = "instance") -> SweInstance:
    """One instance from plain data. Raises TaskError."""
    if not isinstance(row, Mapping):
        raise TaskError(f"{where} is a JSON object, got {str(row)[:100]!r}")
    try:
        return SweInstance.model_validate(dict(row))
    except ValidationError as error:
        words = [f"{fault['loc'][0]}: {fault['msg'].removeprefix('Value error, ')}" for fault in error.errors()]
        raise TaskError(f"{where}: {'; '.join(words)}") from error


def write_instances(path: Path, instances: Iterable[SweInstance]) -> None:
    """JSON lines if the name ends in .jsonl, else a JSON array."""
    _write(path, [instance.as_row() for instance in instances])


def not_used(instance: SweInstance) -> list[str]:
    """Fields that are kept and change nothing here, each with the reason."""
    present = {name: value for name, value in instance.model_dump(exclude_unset=True).items() if value not in (None, "", [], (), {})}
    known = [f"{name}: {reason}" for name, reason in _NOT_USED.items() if name in present]
    unknown = sorted({*instance.further} - {*_NOT_USED} - _PLAIN)
    return known + [f"{name}: no field of SWE-bench, SWE-bench-Live or SWE-rebench that is known here" for name in unknown]


def prediction_of(task_id: str, changes: Sequence[FileChange], pristine: Path, *, model_name: str) -> Prediction:
    """What an attempt changed in its workspace, as a prediction. Needs git; raises ConfigError without it."""
    return Prediction(task_id, model_name, patch_of(changes, pristine))


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """JSON lines if the name ends in .jsonl, else a JSON array; SWE-bench reads both."""
    _write(path, [vars(prediction) for prediction in predictions])


def _rows(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    try:
        whole = json.loads(text)
    except ValueError:
        yield from _lines(path, text)
        return
    rows = whole if isinstance(whole, list) else [whole]
    yield from ((f"{path}, instance {number}", row) for number, row in enumerate(rows, 1))


def _lines(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield f"{path}, line {number}", json.loads(line)
        except ValueError as error:
            raise TaskError(f"{path}, line {number} is no JSON: {error}; instances are a JSON array, or JSON lines") from error


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows, indent=2) + "\n")
