"""SWE-bench's instances as task directories, and back. Owns the translation; the files of instances are swebench.py's.

    instance + a clone of its repository ─► instruction.md · task.toml · environment/ · solution/ · tests/{test.sh,tree}
                                        ◄─ the same fields, diffs made anew

The workspace has the files of base_commit and nothing of the history, where the solution lies.
"""

from __future__ import annotations

import filecmp
import json
import re
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trunkline.errors import TaskError
from trunkline.tasks.formats.git_patch import apply_patch, extract_commit, patch_of
from trunkline.tasks.formats.harbor import HarborTask, read_harbor, read_text, write_harbor
from trunkline.tasks.formats.harbor_config import HarborConfig
from trunkline.tasks.formats.swebench import IMAGE_FIELDS, SweInstance, instance_of
from trunkline.tasks.swe.task import TABLE, CodeSettings, is_regular, is_test_module, read_settings, task_digest, walk
from trunkline.types import FileChange

SOURCE = "swebench"
"""The table of [metadata] with what a task does not need of its instance."""
_KEPT = ("instance_id", "repo", "base_commit", "version", "created_at", "environment_setup_commit", "hints_text")
_BASE_IMAGE = "python:3.11-slim"
SOLVE = """#!/bin/sh
set -eu
cd /workspace
if command -v git > /dev/null; then
    git apply -p1 --whitespace=nowarn /solution/oracle.patch
else
    patch -p1 < /solution/oracle.patch
fi
"""
"""solution/solve.sh of a task whose solution is a patch beside it."""
_TEST = """#!/bin/sh
mkdir -p /logs/verifier
cd /workspace
cp -R /tests/tree/. .
if python3 -m pytest -q -p no:cacheprovider {tests} >&2; then
    echo 1 > /logs/verifier/reward.txt
else
    echo 0 > /logs/verifier/reward.txt
fi
"""


def import_instance(instance: SweInstance, repository: Path, out: Path) -> Path:
    """Writes a task's directory.

    Args:
        instance: Of SWE-bench, with tests as pytest names them.
        repository: A local clone that has its base_commit.
        out: The new directory; nothing is there yet.

    Raises TaskError: the tests are not pytest's, the commit is missing, a patch does not apply, `out` is there.
    """
    files = _test_files(instance)
    with tempfile.TemporaryDirectory(prefix="trunkline-import-") as scratch:
        workspace, judged = Path(scratch) / "workspace", Path(scratch) / "judged"
        extract_commit(repository, instance.base_commit, workspace)
        shutil.copytree(workspace, judged)
        apply_patch(instance.patch, judged, what=f"patch of {instance.instance_id}")  # as a proof
        shutil.rmtree(judged)
        shutil.copytree(workspace, judged)
        apply_patch(instance.test_patch, judged, what=f"test_patch of {instance.instance_id}")
        roots = ("src", ".") if (workspace / "src").is_dir() else (".",)
        made = Path(scratch) / "task"
        write_harbor(made, instruction=instance.problem_statement, config=_config(instance, files, roots), files=_texts(instance))
        shutil.copytree(workspace, made / "environment" / "workspace")
        _copy_changed(workspace, judged, made / "tests" / "tree")
        try:
            shutil.copytree(made, out)
        except OSError as error:
            raise TaskError(f"cannot write {out}: {error}; choose a new directory") from error
    return out


def export_instance(
    folder: Path,
    *,
    oracle: Sequence[FileChange] | None = None,
    fail_to_pass: Sequence[str] | None = None,
    pass_to_pass: Sequence[str] | None = None,
) -> dict[str, Any]:
    """A task's directory as a row of SWE-bench.

    Args:
        folder: Of a task with a workspace.
        oracle: What its solution changes; None: solution/oracle.patch says it.
        fail_to_pass: None: as its task.toml says; those of a certificate where it says none.
        pass_to_pass: Likewise.

    Raises TaskError: it has no workspace, no patch, or no tests that must pass.
    """
    task = read_harbor(folder)
    settings = read_settings(folder, task.config.metadata)
    if settings.workspace is None:
        raise TaskError(f"{folder} has no workspace that a diff could be of; set [metadata.{TABLE}] workspace")
    workspace = folder / "environment" / settings.workspace
    fails = tuple(settings.fail_to_pass if fail_to_pass is None else fail_to_pass)
    if not fails:
        raise TaskError(f"{folder}: nothing says which tests the solution makes pass; certify it, or set [metadata.{TABLE}] fail_to_pass")
    known = task.config.metadata.get(SOURCE, {})
    row: dict[str, Any] = {
        "instance_id": known.get("instance_id", task.name.replace("/", "__")),
        "repo": known.get("repo", task.name),
        "base_commit": known.get("base_commit", task_digest(workspace)[:40]),
        "patch": _oracle_patch(folder, workspace, oracle),
        "test_patch": _test_patch(folder / "tests" / "tree", workspace),
        "problem_statement": task.instruction,
        "FAIL_TO_PASS": json.dumps(list(fails)),
        "PASS_TO_PASS": json.dumps(list(settings.pass_to_pass if pass_to_pass is None else pass_to_pass)),
    }
    row |= {name: known[name] for name in _KEPT if name in known} | json.loads(known.get("further", "{}"))
    row |= _environment_of(task, is_known=any(name in row for name in IMAGE_FIELDS))
    instance_of(row, where=str(folder))
    return row


def import_notices(instance: SweInstance) -> list[str]:
    """What of its test_patch a task cannot say."""
    gone = re.findall(r"^diff --git a/(.+?) b/.+\ndeleted file mode", instance.test_patch, re.MULTILINE)
    return [f"test_patch deletes {path}: it stays in the workspace, and its tests are not judged" for path in gone]


def _test_files(instance: SweInstance) -> tuple[str, ...]:
    names = [*instance.FAIL_TO_PASS, *instance.PASS_TO_PASS]
    foreign = [name for name in names if not is_test_module(name.partition("::")[0])]
    if foreign:
        raise TaskError(f"{instance.instance_id}: {foreign[0]!r} is no name of a pytest test; only those are judged here")
    if not instance.FAIL_TO_PASS:
        raise TaskError(f"{instance.instance_id}: FAIL_TO_PASS is empty, so nothing shows that a solution solves anything")
    return tuple(sorted({name.partition("::")[0] for name in names}))


def _config(instance: SweInstance, files: tuple[str, ...], roots: tuple[str, ...]) -> HarborConfig:
    kept = {name: value for name in _KEPT if (value := getattr(instance, name)) is not None}
    further = {"further": json.dumps(instance.further)} if instance.further else {}
    settings = CodeSettings(
        workspace="workspace",
        import_roots=roots,
        fail_to_pass=instance.FAIL_TO_PASS,
        pass_to_pass=instance.PASS_TO_PASS,
        test_files=files,
    )
    ours = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.model_dump(exclude_defaults=True).items()}
    name = re.sub(r"[^a-zA-Z0-9._-]|\.(?=\.)", "-", instance.instance_id).lstrip("._-")
    return HarborConfig.model_validate(
        {
            "task": {"name": f"swebench/{name}", "keywords": ["swe-bench"]},
            "metadata": {TABLE: ours, SOURCE: kept | further},
            "environment": {"network_mode": "no-network"},
            "verifier": {"environment_mode": "separate"},
        }
    )


def _texts(instance: SweInstance) -> dict[str, str]:
    tests = " ".join(shlex.quote(name) for name in (*instance.FAIL_TO_PASS, *instance.PASS_TO_PASS))
    patch = instance.patch if instance.patch.endswith("\n") else f"{instance.patch}\n"
    return {
        "environment/Dockerfile": _dockerfile(instance),
        "solution/solve.sh": SOLVE,
        "solution/oracle.patch": patch,
        "tests/test.sh": _TEST.format(tests=tests),
    }


def _dockerfile(instance: SweInstance) -> str:
    if instance.dockerfile is not None:
        return instance.dockerfile
    copy = "COPY workspace /workspace\nWORKDIR /workspace\n"
    if instance.image is not None:
        return f"FROM {instance.image}\n{copy}"
    return f"FROM {_BASE_IMAGE}\nRUN pip install --no-cache-dir pytest==8.4.2\n{copy}# What the project itself needs comes here.\n"


def _copy_changed(before: Path, after: Path, target: Path) -> None:
    """Files of `after` that `before` has not, or not so."""
    target.mkdir(parents=True)
    for path in walk(after):
        name = path.relative_to(after)
        if is_regular(path) and not _is_same(before / name, path):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target / name)


def _is_same(one: Path, other: Path) -> bool:
    return one.is_file() and filecmp.cmp(one, other, shallow=False) and _is_executable(one) == _is_executable(other)


def _is_executable(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o100)


def _oracle_patch(folder: Path, workspace: Path, oracle: Sequence[FileChange] | None) -> str:
    if oracle is not None:
        return patch_of(oracle, workspace)
    patch = folder / "solution" / "oracle.patch"
    if not patch.is_file():
        raise TaskError(f"{patch} is missing, so the solution is known only by running solution/solve.sh; certify the task first")
    return read_text(patch)


def _test_patch(hidden: Path, workspace: Path) -> str:
    if not hidden.is_dir():
        return ""
    files = [path for path in walk(hidden) if is_regular(path)]
    return patch_of(
        [FileChange(str(path.relative_to(hidden)), "file", path.stat().st_mode & 0o777, path.read_bytes()) for path in files], workspace
    )


def _environment_of(task: HarborTask, *, is_known: bool) -> dict[str, str]:
    """Where it runs: the instance's own image, or that of the task, or how one is built."""
    if is_known:
        return {}
    if task.config.environment.docker_image is not None:
        return {"image": task.config.environment.docker_image}
    return {"dockerfile": read_text(task.folder / "environment" / "Dockerfile")} if task.has_dockerfile else {}
