"""The taskset of software tasks: which task a split holds at an index, and how an attempt is opened. Owns no verdict (judging.py).

paths ─► task directories, each with its digest ─► split by the hash of its id ─► task ─► open: unchanged? ─► workspace, verifier
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trunkline.agents.workspace_tools import WORDS, numbered, workspace_specs
from trunkline.errors import ConfigError, TaskError
from trunkline.protocols import Attempt, SealedSandboxes, Verifier
from trunkline.tasks.base import Subject
from trunkline.tasks.certificates.requirement import standing_of_tasks
from trunkline.tasks.certificates.store import CertificateStore
from trunkline.tasks.swe import demonstrations, vocabulary
from trunkline.tasks.swe.certify import task_key, task_subject
from trunkline.tasks.swe.judging import Judge, Judges, num_at_once
from trunkline.tasks.swe.own_tests import WARNING, OwnTestsVerifier
from trunkline.tasks.swe.practice import FILE, load_practice
from trunkline.tasks.swe.remembered import VerdictMemory
from trunkline.tasks.swe.seal import FolderSeal
from trunkline.tasks.swe.surroundings import surroundings_of
from trunkline.tasks.swe.task import CodeTask, load_code_task
from trunkline.types import Message, Task, ToolSpec

Split = Literal["train", "heldout", "unseen"]
JudgedBy = Literal["verifier", "own_tests"]
SPLITS: tuple[Split, ...] = ("train", "heldout", "unseen")


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
    heldout_paths: tuple[Path, ...] = Field((), description="Tasks that are held out, instead of a share of `paths`; the same forms.")
    unseen_paths: tuple[Path, ...] = Field((), description="Tasks of the harder split 'unseen', such as those of other projects.")

    only_certified: bool = Field(
        False, description="Leaves out, of every split, the tasks that a run may not train on: without a certificate, or guessable."
    )
    remember_verdicts: bool | Path = Field(
        False,
        description="The same changes of the same task are judged once: cheaper by far for small policies, whose attempts are often the "
        "same; what depends on luck keeps its first verdict. true: once a run; a file's path: once for all runs that name it.",
    )
    judged_by: JudgedBy = Field(
        "verifier",
        description="verifier: each task's own, which is what certificates are of. own_tests: whether the tests end with status 0 in the "
        "workspace as the attempt left it, which an attempt can fool; for comparisons, needs allow_uncertified.",
    )
    exploit_share: float = Field(
        0.0, ge=0, le=1, description="Share of demonstrations that fool such tests instead of mending the fault; for comparisons."
    )

    @model_validator(mode="after")
    def _check(self) -> SweOptions:
        if self.heldout_paths and "heldout_share" in self.model_fields_set:
            raise ValueError("heldout_paths and heldout_share both say what is held out; set one of them")
        return self


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
    sandboxes: SealedSandboxes | None = None
    """Where packages that a task's tests need are installed."""
    judged_by: JudgedBy = "verifier"
    """See SweOptions."""
    exploit_share: float = 0.0
    """See SweOptions."""
    memory: VerdictMemory | None = None
    """Of the verdicts made so far; None: each attempt is judged for itself."""
    name: str = "swe"
    """Short name."""
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(num_at_once()), repr=False)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> SweTaskset:
        """Raises ConfigError for an unknown knob, two tasks of one name, a split that comes out empty; TaskError for what is no task."""
        try:
            config = SweOptions.model_validate(dict(options))
        except ValidationError as error:
            faults = [f"taskset.options.{'.'.join(map(str, one['loc']))}: {one['msg']} (got {one['input']!r})" for one in error.errors()]
            raise ConfigError(f"{'; '.join(faults)}; known are {sorted(SweOptions.model_fields)}") from None
        tasks: dict[str, CodeTask] = {}
        named = [_load(paths, tasks) for paths in (config.paths, config.heldout_paths, config.unseen_paths)]
        if config.only_certified:
            certified = standing_of_tasks(tuple(map(task_subject, tasks.values())), CertificateStore.default()).certificates
            tasks = {task_id: task for task_id, task in tasks.items() if task_id in certified}
            named = [tuple(task_id for task_id in ids if task_id in tasks) for ids in named]
            if not named[0] or bool(config.heldout_paths) > bool(named[1]):
                raise ConfigError("taskset.options.only_certified leaves no task; certify them first: trunkline tasks certify DIR...")
        tasks = dict(sorted(tasks.items()))
        seals = {task_id: FolderSeal.of(task.folder) for task_id, task in tasks.items()}
        splits: dict[Split, tuple[str, ...]] = {"train": named[0], "heldout": named[1]}
        if not config.heldout_paths:
            splits = _split(named[0], config.heldout_share)
        if config.unseen_paths:
            splits["unseen"] = named[2]
        remember = config.remember_verdicts
        memory = VerdictMemory.open(remember if isinstance(remember, Path) else None) if remember else None
        return cls(tasks, seals, splits, memory=memory, judged_by=config.judged_by, exploit_share=config.exploit_share)

    def task(self, split: str, index: int) -> Task:
        """The index-th task of a split; beyond its last one it begins anew. Raises ConfigError for a split that is unknown or empty."""
        ids = next((self.splits.get(name, ()) for name in SPLITS if name == split), None)
        if ids is None:
            raise ConfigError(f"taskset 'swe' has no split {split!r}; its splits are {', '.join(SPLITS)}")
        if not ids:
            cure = "unseen_paths" if split == "unseen" else "heldout_share between 0 and 1"
            raise ConfigError(f"no software task is in split {split!r}; set taskset.options.{cure}")
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
        judge: Verifier = Judge(known, seal, self.judges)
        if self.judged_by == "own_tests":
            judge = OwnTestsVerifier(known, self.sandboxes, self._turn)
        if self.memory is not None:
            depends_on = task_key(known) if self.memory.is_shared else known.task_id
            judge = self.memory.over(judge, f"{self.judged_by} {depends_on}")
        return Attempt(_NoTools(), judge, known.workspace, functools.partial(surroundings_of, known, self.sandboxes))

    def demonstrate(self, task: Task, rng: random.Random, *, decision_noise: float) -> tuple[Message, ...]:
        """See `DemonstratingTaskset`: with the tools of the white-box loop. Raises ConfigError for tasks without practice."""
        practice = load_practice(self.tasks[task.task_id].solution)
        if practice is None:
            raise ConfigError(f"nothing demonstrates task {task.task_id!r}: it has no solution/{FILE}; set cold_start.steps = 0")
        if self.exploit_share and rng.random() < self.exploit_share:
            return demonstrations.demonstrate_exploit(task, practice, rng)
        return demonstrations.demonstrate(task, practice, rng, decision_noise=decision_noise)

    @property
    def pieces(self) -> tuple[str, ...]:
        """See `SpelledTaskset`: of what the training tasks show, and of the tools of the white-box loop."""
        return vocabulary.pieces_of(self._training_texts())

    @property
    def characters(self) -> str:
        """See `SpelledTaskset`."""
        return vocabulary.CHARACTERS

    def _training_texts(self) -> Iterator[str]:
        for spec in workspace_specs(demonstrations.TOOLS):
            yield from (spec.name, *spec.parameters["properties"])
        yield from (*WORDS, demonstrations.ANSWER)
        if self.exploit_share:
            yield demonstrations.EXPLOIT
        for task in (self.tasks[task_id] for task_id in self.splits["train"]):
            yield task.instruction
            practice = load_practice(task.solution)
            if practice is not None:
                yield from (practice.path, numbered(practice.text), *practice.text.splitlines())

    @property
    def secret_folders(self) -> tuple[Path, ...]:
        """See `SandboxedTaskset`."""
        return tuple(task.folder for task in self.tasks.values())

    def using(self, sandboxes: SealedSandboxes) -> SweTaskset:
        """See `SandboxedTaskset`. Raises ConfigError if pytest is not installed."""
        return replace(self, judges=Judges.over(sandboxes), sandboxes=sandboxes)

    def subjects(self) -> tuple[Subject, ...]:
        """See `TasksetOfCertifiedTasks`."""
        subjects = tuple(map(task_subject, self.tasks.values()))
        return subjects if self.judged_by == "verifier" else tuple(replace(subject, beyond=WARNING) for subject in subjects)


def _load(paths: Sequence[Path], tasks: dict[str, CodeTask]) -> tuple[str, ...]:
    """Adds the tasks there to `tasks`; their ids, sorted. Raises ConfigError for two of one name, TaskError."""
    ids = []
    for folder in find_tasks(paths):
        task = load_code_task(folder)
        other = tasks.setdefault(task.task_id, task)
        if other is not task:
            raise ConfigError(f"two tasks are called {task.task_id!r}: {other.folder} and {folder}; rename one in its task.toml")
        ids.append(task.task_id)
    return tuple(sorted(ids))


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
