"""What a task that asks for tests holds beside its workspace, and the trees made of it. Owns no run and no judgement.

tests/inversion.toml   deleted = [...]  what the change deletes; modules, features = [...]  what tests may use beyond what is listed
tests/after/**         what the change writes, at its places in the workspace
tests/wrong/NAME/**    wrong ways to write it: files that lie over those
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trunkline.errors import TaskError
from trunkline.tasks.formats.harbor import read_text
from trunkline.tasks.swe.inversion.disguise import disguise
from trunkline.tasks.swe.task import CodeTask, is_regular, walk
from trunkline.tasks.swe.tree import is_inside
from trunkline.types import FileChange

SETTINGS = "tests/inversion.toml"
AFTER = "tests/after"
WRONG = "tests/wrong"
NUM_BEFORE = 3
"""Trees without the change that a verdict runs tests on, each in other words."""
NUM_RIGHT = 3
"""Trees with it."""
MOST_WRONG = 3
"""Trees with a wrong version of it; each runs once."""


class InversionSettings(BaseModel):
    """tests/inversion.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    deleted: tuple[str, ...] = Field((), description="Files of the workspace that the change deletes.")
    modules: tuple[str, ...] = Field((), description="Modules that tests may import beside those that any may.")
    features: tuple[str, ...] = Field((), description="What tests may use although screen.py refuses it, in its words.")


@dataclass(frozen=True)
class Parts:
    """A change that tests are to notice."""

    settings: InversionSettings
    """What is said of it."""
    fix: tuple[FileChange, ...]
    """What the change does to the workspace."""
    wrong: Mapping[str, tuple[FileChange, ...]]
    """Ways to do it wrongly: name to files that lie over those of the change."""


@dataclass(frozen=True)
class Tree:
    """A project to run tests on."""

    role: Literal["before", "right", "wrong"]
    """Whether it has the fault, the cure, or another fault."""
    changes: tuple[FileChange, ...]
    """Of the workspace."""


def load_parts(task: CodeTask) -> Parts:
    """Out of a task's folder. Raises TaskError, naming the file and what to do."""
    path = task.folder / SETTINGS
    try:
        settings = InversionSettings.model_validate(tomllib.loads(read_text(path)))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise TaskError(f"{path}: {error}; known are {sorted(InversionSettings.model_fields)}") from None
    fix = [*_files(task.folder / AFTER)]
    for name in settings.deleted:
        if not is_inside(name) or not (task.workspace / name).is_file():
            raise TaskError(f"{path}: deleted names {name!r}, which is no file of the workspace; remove it")
        fix.append(FileChange(name, "deleted"))
    if not fix:
        raise TaskError(f"{task.folder / AFTER} holds nothing: put the files there that the change writes, which tests are to notice")
    folder = task.folder / WRONG
    wrong = {entry.name: tuple(_files(entry)) for entry in sorted(folder.iterdir())} if folder.is_dir() else {}
    if not 1 <= len(wrong) <= MOST_WRONG:
        raise TaskError(
            f"{folder} has {len(wrong)} wrong versions of the change, a task has 1..{MOST_WRONG}: without one, a test that knows the old "
            "code from the new by its text could be paid"
        )
    known = {change.path for change in fix if change.kind == "file"}
    for name, files in wrong.items():
        if not files or not {change.path for change in files} <= known:
            raise TaskError(f"{folder / name} has to hold files that are in {AFTER}, too, with a fault in one of them")
    return Parts(settings, tuple(fix), wrong)


def draw_trees(task: CodeTask, parts: Parts, rng: random.Random) -> list[Tree]:
    """The trees of one verdict in a random order, their sources in words of their own."""
    after = {change.path: change for change in parts.fix}
    trees = [Tree("before", tuple(_before(task, after, rng))) for _ in range(NUM_BEFORE)]
    trees += [Tree("right", tuple(_disguised(after, {}, rng))) for _ in range(NUM_RIGHT)]
    trees += [Tree("wrong", tuple(_disguised(after, {change.path: change for change in files}, rng))) for files in parts.wrong.values()]
    rng.shuffle(trees)
    return trees


def _before(task: CodeTask, after: Mapping[str, FileChange], rng: random.Random) -> Iterator[FileChange]:
    """The old sources; of what is no source the new version, since it could only tell the trees apart."""
    for path, change in after.items():
        place = task.workspace / path
        if not _is_code(task, path):
            yield change
        elif place.is_file() and path.endswith(".py"):
            yield _in_other_words(FileChange(path, "file", change.mode, place.read_bytes()), change, rng)


def _disguised(after: Mapping[str, FileChange], over: Mapping[str, FileChange], rng: random.Random) -> Iterator[FileChange]:
    for path, change in after.items():
        yield _in_other_words(over.get(path, change), change, rng) if change.kind == "file" and path.endswith(".py") else change


def _in_other_words(change: FileChange, after: FileChange, rng: random.Random) -> FileChange:
    try:
        text = change.content.decode()
        like = after.content.decode() if after.kind == "file" else None
    except UnicodeDecodeError:
        return change
    return FileChange(change.path, "file", change.mode, disguise(text, like=like, rng=rng).encode())


def _is_code(task: CodeTask, path: str) -> bool:
    """Python, or what lies in a package and may be its data."""
    folders = [str(parent) for parent in PurePosixPath(path).parents][:-1]
    return path.endswith(".py") or any((task.workspace / folder / "__init__.py").is_file() for folder in folders)


def _files(folder: Path) -> Iterator[FileChange]:
    if folder.is_dir():
        for path in walk(folder):
            if is_regular(path):
                mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                yield FileChange(path.relative_to(folder).as_posix(), "file", mode, path.read_bytes())
