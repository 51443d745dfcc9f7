"""A draft as a task's directory in Harbor's format. Owns the directory's parts; what is in them others found out.

Draft ─► instruction.md · task.toml · environment/{workspace, lock, Dockerfile} · solution/ · tests/{tree, test.sh, judged.txt, heldout.py}
      ─► proofs: the patch gives the solution, nothing of the future, the task loads ─► OUT/NAME, whole or not at all
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trunkline.errors import TaskError
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.future import assert_no_future
from trunkline.tasks.formats.git_patch import apply_patch, patch_of
from trunkline.tasks.formats.harbor import write_harbor
from trunkline.tasks.formats.harbor_config import HarborConfig
from trunkline.tasks.formats.swebench_tasks import SOLVE
from trunkline.tasks.swe.task import TABLE, CodeSettings, is_regular, load_code_task, walk
from trunkline.tasks.swe.tree import is_inside, lay_tree

FACTORY = "factory"
"""The table of [metadata] with what is known of a task's making."""
ORGANISATION = "mined"
"""Of the names of tasks."""

_MOST_BYTES = 64 * 2**20
_MOST_FILES = 10_000
_LONGEST_FACT = 2000
_DOCKERFILE = """FROM python:3.11-slim
RUN pip install --no-cache-dir pytest==8.4.2
COPY workspace /workspace
WORKDIR /workspace
"""
# The judged tests by name, in as many calls as the command line needs; xargs fails if one of them does.
_TEST = """#!/bin/sh
mkdir -p /logs/verifier
cd /workspace
if [ -d /tests/tree ]; then cp -R /tests/tree/. .; fi
if xargs -d '\\n' python3 -m pytest -q -p no:cacheprovider < /tests/judged.txt >&2; then
    echo 1 > /logs/verifier/reward.txt
else
    echo 0 > /logs/verifier/reward.txt
fi
"""


def write_task(draft: Draft, out: Path) -> Path:
    """Writes a task's directory.

    Args:
        draft: With its instruction.
        out: The directory of tasks; made if it is not there.

    Returns `out`/NAME. Raises Rejection (write): 'odd files', 'too large', 'the solution is no patch', 'the workspace holds the
    future', 'not a task'; TaskError if there is such a directory already.
    """
    folder = out / draft.name
    if folder.exists():
        raise TaskError(f"{folder} is there already; remove it, or choose a new directory")
    if not draft.instruction.strip():
        raise Rejection("write", "not a task", "it has no instruction")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=out) as scratch:
        made = Path(scratch) / "task"
        _lay_workspace(draft.workspace, made / "environment" / "workspace")
        try:
            _write(draft, made)
        except (TaskError, ValidationError) as error:
            raise Rejection("write", "not a task", str(error)[:500]) from error
        assert_no_future(made, draft)
        for path in (made, *made.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        os.rename(made, folder)
    return folder


def _write(draft: Draft, made: Path) -> None:
    """All but the workspace. Raises TaskError, ValidationError, Rejection."""
    workspace, config = made / "environment" / "workspace", _config(draft)
    scratch = made.with_name("parts")
    files = _texts(draft, workspace) | {f"tests/tree/{change.path}": change.content for change in draft.hidden_tests}
    write_harbor(scratch, instruction=draft.instruction, config=config, files=files)
    for change in draft.hidden_tests:
        (scratch / "tests" / "tree" / change.path).chmod(0o755 if change.mode & stat.S_IXUSR else 0o644)
    shutil.copytree(scratch, made, dirs_exist_ok=True)
    shutil.rmtree(scratch)
    load_code_task(made)


def _lay_workspace(source: Path, target: Path) -> None:
    """Copies regular files, without caches and version control. Raises Rejection for anything else, and for too much."""
    num_bytes = num_files = 0
    for path in walk(source):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or not is_inside(path.relative_to(source).as_posix()):
            raise Rejection("write", "odd files", f"{path.relative_to(source)} is a link, a device, or a name that no workspace has")
        num_files, num_bytes = num_files + 1, num_bytes + path.lstat().st_size
    if num_bytes > _MOST_BYTES or num_files > _MOST_FILES:
        said = f"the workspace has {num_bytes:,} bytes in {num_files:,} files"
        raise Rejection("write", "too large", f"{said}; at most {_MOST_BYTES:,} and {_MOST_FILES:,}")
    lay_tree(target, pristine=source)


def _texts(draft: Draft, workspace: Path) -> dict[str, bytes | str]:
    """Path in the task to content; what the environment brings wins."""
    judged = (*draft.tested.fail_to_pass, *draft.tested.pass_to_pass)
    found: dict[str, bytes | str] = {
        "environment/Dockerfile": _DOCKERFILE,
        "solution/solve.sh": SOLVE,
        "tests/test.sh": _TEST,
        "tests/judged.txt": "".join(f"{name}\n" for name in judged),
    }
    if draft.heldout:
        found["tests/heldout.py"] = draft.heldout
    found |= draft.environment.files()
    if not judged:
        del found["tests/judged.txt"]
    if "solution/oracle.patch" not in found and "/solution/oracle.patch" in str(found["solution/solve.sh"]):
        found["solution/oracle.patch"] = _patch(draft, workspace)
    return found


def _patch(draft: Draft, workspace: Path) -> str:
    """Of the solution; proved by applying it. Raises Rejection."""
    patch = patch_of(draft.solution, workspace)
    with tempfile.TemporaryDirectory(prefix="trunkline-patch-") as scratch:
        by_patch, meant = Path(scratch) / "by-patch", Path(scratch) / "meant"
        lay_tree(by_patch, pristine=workspace)
        refused = lay_tree(meant, pristine=workspace, changes=draft.solution)
        try:
            apply_patch(patch, by_patch, what="the solution")
        except TaskError as error:
            raise Rejection("write", "the solution is no patch", str(error)[:300]) from error
        if refused or not patch.strip() or _contents(by_patch) != _contents(meant):
            said = refused[0].path if refused else "the patch does not give the same files"
            raise Rejection("write", "the solution is no patch", said)
    return patch


def _contents(tree: Path) -> dict[str, bytes]:
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in walk(tree) if is_regular(path)}


def _config(draft: Draft) -> HarborConfig:
    settings: dict[str, Any] = {
        "workspace": "workspace",
        "kind": draft.kind,
        "fail_to_pass": draft.tested.fail_to_pass,
        "pass_to_pass": draft.tested.pass_to_pass,
        "test_files": draft.test_files,
    }
    checked = CodeSettings.model_validate(settings | dict(draft.environment.settings()))
    ours = {name: list(value) if isinstance(value, tuple) else value for name, value in checked.model_dump(exclude_defaults=True).items()}
    return HarborConfig.model_validate(
        {
            "task": {"name": f"{ORGANISATION}/{draft.name}", "description": _title(draft), "keywords": [draft.variant, draft.kind]},
            "metadata": {TABLE: ours, FACTORY: _facts(draft)},
            "environment": {"network_mode": "no-network"},
            "verifier": {"environment_mode": "separate"},
            "artifacts": ["/workspace"],
        }
    )


def _title(draft: Draft) -> str:
    return f"{draft.variant} {draft.kind} of {draft.candidate.project}"


def _facts(draft: Draft) -> Mapping[str, str]:
    """For the record; no agent sees a task.toml."""
    candidate = draft.candidate
    said = {
        "candidate": candidate.candidate_id,
        "project": candidate.project,
        "before": candidate.before,
        "after": candidate.after,
        "date": candidate.date.isoformat(),
        "variant": draft.variant,
        "recipe": draft.environment.recipe.words,
        **candidate.facts,
        **draft.facts,
    }
    if draft.tested.quarantined:
        said["quarantined"] = "; ".join(f"{name}: {why}" for name, why in draft.tested.quarantined.items())
    return {name: value[:_LONGEST_FACT] for name, value in said.items() if value}
