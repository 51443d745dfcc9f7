"""The tasks room's plug points: tasksets that can demonstrate, that are certified, that need sandboxes. Owns no implementation."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from trunkline.protocols import SealedSandboxes, Taskset, Tools
from trunkline.types import Message, Task


@dataclass(frozen=True)
class Conduct:
    """One way to behave in an attempt, and what it must earn. `Conduct("says nothing", 0, silence)`."""

    name: str
    """What it does, in words; unique in its corpus."""
    earns: Literal[0, 1]
    """1: honest work; 0: an attack."""
    act: Callable[[Task, Tools, random.Random], Awaitable[str]]
    """Works on a task with its tools and returns the answer. It may read the payload: the strongest attacker knows all."""


@dataclass(frozen=True)
class Subject:
    """What a certificate is of. `Subject("lookup", "0c5e...")`."""

    name: str
    """A taskset's short name, or a task's id."""
    key: str
    """Hash of all that its certificate depends on: a certificate under another key says nothing of it."""
    folder: Path | None = None
    """Of a task: what `trunkline tasks certify` is told."""
    beyond: str = ""
    """Why no certificate can speak for its rewards; '' if one can."""


@runtime_checkable
class DemonstratingTaskset(Taskset, Protocol):
    """A taskset that can show how its tasks are done.

    >>> class OneTask:
    ...     def demonstrate(self, task, rng, *, decision_noise): return (*task.prompt, Message("assistant", "yes"))
    """

    def demonstrate(self, task: Task, rng: random.Random, *, decision_noise: float) -> tuple[Message, ...]:
        """A whole conversation; each decision is a noisy one with probability `decision_noise`, 0 is always right."""
        ...


@runtime_checkable
class SpelledTaskset(Taskset, Protocol):
    """A taskset that says what its texts are made of, so that a tokenizer can be made for it.

    >>> class OneTask:
    ...     pieces, characters = ("Say yes",), "yes"
    """

    @property
    def pieces(self) -> tuple[str, ...]:
        """Kept whole."""
        ...

    @property
    def characters(self) -> str:
        """What the rest is spelled with."""
        ...


@runtime_checkable
class CertifiableTaskset(Taskset, Protocol):
    """A taskset that says how it may be cheated, so that its verifier can be put to the proof.

    >>> class OneTask:
    ...     splits = ("train",)
    ...     attack_corpus_version = 1
    ...     conducts = (Conduct("oracle", 1, says_yes), Conduct("no-op", 0, says_nothing))
    ...     not_excluded = ("an agent that always says yes",)
    ...     def identity(self): return {"name": "one"}
    """

    @property
    def splits(self) -> Sequence[str]:
        """All splits; a certificate samples each."""
        ...

    @property
    def attack_corpus_version(self) -> int:
        """Raised whenever the corpus changes in meaning."""
        ...

    @property
    def conducts(self) -> Sequence[Conduct]:
        """The oracle and the attacks."""
        ...

    @property
    def not_excluded(self) -> Sequence[str]:
        """Classes of unearned reward that its verifier cannot exclude, in words."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """All that decides tasks and verdicts besides code: configuration and data version; plain JSON."""
        ...


@runtime_checkable
class TasksetOfCertifiedTasks(Taskset, Protocol):
    """A taskset whose tasks are certified one by one.

    >>> class OneTask:
    ...     def subjects(self): return (Subject("owner/one", task_key(load_code_task(folder)), folder),)
    """

    def subjects(self) -> Sequence[Subject]:
        """All that it may give out, of any split. Raises TaskError if a task's files cannot be read."""
        ...


@runtime_checkable
class SandboxedTaskset(Taskset, Protocol):
    """A taskset whose attempts work on a directory, in a sandbox, and whose verdicts run in sealed sandboxes.

    >>> async with IsolatedSandboxes.open(SandboxConfig()) as sandboxes:
    ...     attempt = taskset.using(sandboxes).open(task)
    """

    @property
    def secret_folders(self) -> Sequence[Path]:
        """Directories of this host that no agent may see: solutions and hidden tests."""
        ...

    def using(self, sandboxes: SealedSandboxes) -> Taskset:
        """The same taskset, whose verdicts run there. Without them an attempt can be opened, but not judged."""
        ...
