"""A software task as a folder: what it says, where its parts lie, and its digest. Owns no verdict; the format is formats/harbor.py's.

A task is a Harbor directory whose metadata has a table [metadata.trunkline]:

    instruction.md · task.toml · environment/WORKSPACE/** · solution/solve.sh · tests/tree/** · tests/heldout.py
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trunkline.errors import TaskError
from trunkline.tasks.formats.harbor import read_harbor

TABLE = "trunkline"
"""Of [metadata]."""

Kind = Literal["bug", "feature", "refactor", "performance", "tests", "review"]
Judging = Literal["pytest", "inversion", "script"]
"""What a task is judged by."""


class CodeSettings(BaseModel):
    """Table [metadata.trunkline] of a task.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    verifier: Judging = Field(
        "pytest", description="pytest: the hardened one; inversion: tests are what is written; script: Harbor's tests/test.sh."
    )
    kind: Kind = Field("bug", description="What is asked for, for reports.")
    workspace: str | None = Field(
        None, min_length=1, description="Folder in environment/ that the agent works on; none: it is in its image."
    )
    import_roots: tuple[str, ...] = Field((".",), min_length=1, description="Directories of the workspace from which modules are imported.")
    fail_to_pass: tuple[str, ...] = Field((), description="Tests that the solution makes pass, as pytest names them; none: found.")
    pass_to_pass: tuple[str, ...] = Field((), description="Tests that pass before and after; none: found.")
    test_files: tuple[str, ...] = Field((), description="Test files that are judged; none: every test_*.py and *_test.py.")
    allow: tuple[str, ...] = Field((), description="Patterns of files that a solution may change beside source, such as 'docs/*.md'.")
    pytest_args: tuple[str, ...] = Field((), description="Further arguments of pytest.")
    timeout_s: float = Field(60.0, gt=0, le=3600, description="Of one process of a verdict.")


@dataclass(frozen=True)
class CodeTask:
    """A software task that this host can run. Its folder is trusted once it is certified."""

    task_id: str
    """Its name, 'org/name'."""
    instruction: str
    """What the agent is told."""
    folder: Path
    """The whole task."""
    workspace: Path
    """What the agent starts with."""
    hidden_tests: Path | None
    """A tree that is laid over the workspace for a verdict; None: its visible tests are all there are."""
    heldout: Path | None
    """A module that draws calls and observes them; None: no held-out inputs."""
    solution: Path
    """The folder with solve.sh, the oracle; no agent sees it."""
    settings: CodeSettings
    """Of its task.toml."""


def load_code_task(folder: Path) -> CodeTask:
    """Reads a task's folder. Raises TaskError, naming the file and what to do."""
    harbor = read_harbor(folder)
    settings = read_settings(folder, harbor.config.metadata)
    if settings.workspace is None:
        raise TaskError(
            f"{folder / 'task.toml'}: [metadata.{TABLE}] names no workspace, so only its image has the files. As it is, in containers, "
            "it can be certified and judged (trunkline tasks certify, verify, show and list); a run cannot take it yet, since all agents "
            f"of a run share one image. For one, put its files into {folder / 'environment'}/workspace and set workspace = 'workspace'"
        )
    environment, tests, solution = folder / "environment", folder / "tests", folder / "solution"
    workspace = environment / settings.workspace
    if ".." in Path(settings.workspace).parts or not workspace.is_dir() or workspace.resolve() == environment.resolve():
        raise TaskError(f"{folder / 'task.toml'}: workspace is a folder in {environment}, there is no {settings.workspace!r}")
    if not (solution / "solve.sh").is_file():
        raise TaskError(f"{solution / 'solve.sh'} is missing; without a solution nothing shows that the task can be solved")
    for root in settings.import_roots:
        if ".." in Path(root).parts or not (workspace / root).is_dir() or Path(root).is_absolute():
            raise TaskError(f"{folder / 'task.toml'}: import_roots are folders of the workspace, there is no {root!r} in {workspace}")
    return CodeTask(
        task_id=harbor.name,
        instruction=harbor.instruction,
        folder=folder,
        workspace=workspace,
        hidden_tests=tests / "tree" if (tests / "tree").is_dir() else None,
        heldout=tests / "heldout.py" if (tests / "heldout.py").is_file() else None,
        solution=solution,
        settings=settings,
    )


def read_settings(folder: Path, metadata: Any) -> CodeSettings:
    """The settings in a task's [metadata]; those of an empty table if it has none. Raises TaskError for what does not exist."""
    try:
        return CodeSettings.model_validate(metadata.get(TABLE, {}))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}, got {fault['input']!r}" for fault in error.errors())
        known = sorted(CodeSettings.model_fields)
        raise TaskError(f"{folder / 'task.toml'}: [metadata.{TABLE}]: {faults}; known are {known}") from None


def judged_sources(task: CodeTask) -> dict[str, str]:
    """The judged test files as a verdict has them, hidden ones over visible ones: path in the workspace to text, sorted.

    Raises TaskError: there is none, a named one is missing, or one is not UTF-8.
    """
    found: dict[str, Path] = {}
    for tree in filter(None, (task.workspace, task.hidden_tests)):
        found |= {path.relative_to(tree).as_posix(): path for path in walk(tree) if path.suffix == ".py" and is_regular(path)}
    wanted = task.settings.test_files or tuple(path for path in found if is_test_module(path))
    if not wanted:
        raise TaskError(f"{task.folder}: there is no test_*.py or *_test.py in the workspace or in tests/tree; add one, or set test_files")
    if missing := sorted(set(wanted) - set(found)):
        raise TaskError(
            f"{task.folder / 'task.toml'}: test_files names {missing[0]!r}, which is neither in the workspace nor in tests/tree"
        )
    try:
        return {path: found[path].read_text("utf-8") for path in sorted(wanted)}
    except UnicodeDecodeError as error:
        raise TaskError(f"{task.folder}: a test file is not UTF-8 ({error}); save it as UTF-8") from None


def visible_sources(task: CodeTask) -> dict[str, str]:
    """Those of the judged files that the agent has, as it has them: path in the workspace to text. One that is not UTF-8 is passed over."""
    found: dict[str, str] = {}
    for path in judged_sources(task):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found[path] = (task.workspace / path).read_text("utf-8")
    return found


def is_test_module(path: str) -> bool:
    """Whether pytest collects a file of this name by default."""
    name = path.rpartition("/")[2].casefold()
    return name.endswith(".py") and (name.startswith("test_") or name.endswith("_test.py"))


def task_digest(folder: Path) -> str:
    """SHA-256 over path, x-bit and content of all its files. Raises TaskError for links and for what is no file: they say nothing firm."""
    digest = hashlib.sha256()
    for path in walk(folder):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise TaskError(f"{path} is neither a file nor a directory; a task consists of files, replace it by a copy")
        name = os.fsencode(path.relative_to(folder))
        if stat.S_ISREG(mode):
            content = path.read_bytes()
            digest.update(b"%d %s %d %d\n" % (len(name), name, bool(mode & stat.S_IXUSR), len(content)))
            digest.update(content)
    return digest.hexdigest()


def walk(tree: Path) -> Iterator[Path]:
    """All that lies in a directory, sorted by name, directories before what they hold; links are not followed."""
    for path in sorted(tree.iterdir()):
        yield path
        if stat.S_ISDIR(path.lstat().st_mode):
            yield from walk(path)


def is_regular(path: Path) -> bool:
    """Whether it is a file itself, no link to one."""
    return stat.S_ISREG(path.lstat().st_mode)
