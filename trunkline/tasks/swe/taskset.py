"""The taskset of software tasks: which task a split holds at an index, and how an attempt is opened. Owns no verdict (judging.py).

paths ─► task directories, each with its digest ─► split by the hash of its id ─► task ─► open: unchanged? ─► workspace, verifier
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trunkline.errors import ConfigError, TaskError
from trunkline.protocols import Attempt, SealedSandboxes
from trunkline.tasks.base import Subject
from trunkline.tasks.swe.certify import task_subject
from trunkline.tasks.swe.judging import Judge, Judges
from trunkline.tasks.swe.seal import FolderSeal
from trunkline.tasks.swe.task import CodeTask, load_code_task
from trunkline.types import Message, Task, ToolSpec

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = ("train", "heldout")


class SweOptions(BaseModel):
    """The taskset's knobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: tuple[Path, ...] = Field(min_length=1, description="Task directories, or folders that hold some at any depth.")
    heldout_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Expected share of tasks that are held out: those whose ids hash below it; 0: none, 1: all.",
    )


@dataclass
class SweTaskset:
    """Implements `Taskset`, `TasksetOfCertifiedTasks` and `SandboxedTaskset`.

    >>> taskset = SweTaskset.from_options({"paths": ["tasks/software"]})
    >>> taskset.task("heldout", 0).task_id
    'trunkline/merge-intervals'
    """

    tasks: Mapping[str, CodeTask]
    """By id, sorted."""
    seals: Mapping[str, FolderSeal]
    """Of the same ids: what their folders held when they were loaded."""
    splits: Mapping[Split, tuple[str, ...]]
    """Ids, sorted."""
    judges: Judges | None = None
    """Make verdicts; None: an attempt can be opened, but not judged."""
    name: str = "swe"
    """Short name."""

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> SweTaskset:
        """Raises ConfigError for an unknown knob, two tasks of one name, a split that comes out empty; TaskError for what is no task."""
        try:
            config = SweOptions.model_validate(dict(options))
        except ValidationError as error:
            faults = [f"taskset.options.{'.'.join(map(str, one['loc']))}: {one['msg']} (got {one['input']!r})" for one in error.errors()]
            raise ConfigError(f"{'; '.join(faults)}; known are {sorted(SweOptions.model_fields)}") from None
        tasks: dict[str, CodeTask] = {}
        for folder in find_tasks(config.paths):
            task = load_code_task(folder)
            other = tasks.setdefault(task.task_id, task)
            if other is not task:
                raise ConfigError(f"two tasks are called {task.task_id!r}: {other.folder} and {folder}; rename one in its task.toml")
        tasks = dict(sorted(tasks.items()))
        seals = {task_id: FolderSeal.of(task.folder) for task_id, task in tasks.items()}
        return cls(tasks, seals, _split(tuple(tasks), config.heldout_share))

    def task(self, split: str, index: int) -> Task:
        """The index-th task of a split; beyond its last one it begins anew. Raises ConfigError for a split that is unknown or empty."""
        ids = next((self.splits[name] for name in SPLITS if name == split), None)
        if ids is None:
            raise ConfigError(f"taskset 'swe' has no split {split!r}; its splits are {', '.join(SPLITS)}")
        if not ids:
            raise ConfigError(f"no software task is in split {split!r}; set taskset.options.heldout_share between 0 and 1")
        if index < 0:
            raise ConfigError(f"task indices start at 0, got {index}")
        task = self.tasks[ids[index % len(ids)]]
        payload = {"folder": str(task.folder), "digest": self.seals[task.task_id].digest}
        return Task(task.task_id, self.name, task.settings.kind, (Message("user", task.instruction),), payload)

    def open(self, task: Task) -> Attempt:
        """A fresh attempt. Raises TaskError if the task is none of these, or its folder is not what it was when the task was given out."""
        known = self.tasks.get(task.task_id)
        if known is None:
            raise TaskError(f"task {task.task_id!r} is not among the {len(self.tasks)} in taskset.options.paths; add its folder")
        seal = self.seals[task.task_id]
        seal.require_whole(task.payload.get("digest"))
        return Attempt(_NoTools(), Judge(known, seal, self.judges), known.workspace)

    @property
    def secret_folders(self) -> tuple[Path, ...]:
        """See `SandboxedTaskset`."""
        return tuple(task.folder for task in self.tasks.values())

    def using(self, sandboxes: SealedSandboxes) -> SweTaskset:
        """See `SandboxedTaskset`. Raises ConfigError if pytest is not installed."""
        return replace(self, judges=Judges.over(sandboxes))

    def subjects(self) -> tuple[Subject, ...]:
        """See `TasksetOfCertifiedTasks`."""
        return tuple(map(task_subject, self.tasks.values()))


def find_tasks(paths: Sequence[Path]) -> tuple[Path, ...]:
    """The task directories that are named or lie in named folders, each once. Raises TaskError for a path that has none."""
    found: dict[Path, None] = {}
    for path in paths:
        here = dict.fromkeys(folder.absolute() for folder in _tasks_in(path))
        if not here:
            raise TaskError(f"{path.absolute()} is no task and holds none: there is no task.toml; check the path")
        found |= here
    return tuple(found)


def _tasks_in(path: Path) -> Iterator[Path]:
    """What lies in a task's own folder is no other task."""
    if (path / "task.toml").is_file():
        yield path
    elif path.is_dir():
        for below in sorted(path.iterdir()):
            if below.is_dir() and not below.name.startswith(".") and not below.is_symlink():
                yield from _tasks_in(below)


def _split(ids: Sequence[str], share: float) -> dict[Split, tuple[str, ...]]:
    """Each task by itself: adding one moves no other from one side to the other. Raises ConfigError."""
    places = {task_id: int.from_bytes(hashlib.sha256(task_id.encode()).digest()[:8], "big") / 2**64 for task_id in ids}
    heldout = tuple(task_id for task_id in ids if places[task_id] < share)
    train = tuple(task_id for task_id in ids if places[task_id] >= share)
    if 0 < share < 1 and not (heldout and train):
        cure = "add tasks, or set it to 0 (all are for training) or 1 (all are held out)"
        if len(ids) > 1:
            cure += f"; above {min(places.values()):.3f} and up to {max(places.values()):.3f} both splits have tasks"
        missing = "training" if heldout else "the held-out split"
        raise ConfigError(f"with taskset.options.heldout_share = {share:g} none of {len(ids)} tasks is left for {missing}; {cure}")
    return {"train": train, "heldout": heldout}


class _NoTools:
    """Implements `Tools`: an agent works with what is in its sandbox."""

    specs: tuple[ToolSpec, ...] = ()

    async def call(self, name: str, arguments: str) -> str:
        """None there is."""
        return f"there is no tool {name!r}: this task is worked on with files and commands"
