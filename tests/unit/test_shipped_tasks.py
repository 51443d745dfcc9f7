"""The shipped software tasks as folders: complete, tidy, solvable by their patch. Whether a verdict can trust them, certificates say."""

import os
import random
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trunkline.tasks.swe.task import judged_sources, load_code_task

SHIPPED = Path(__file__).parents[2] / "tasks"
TASKS = sorted(path for path in (SHIPPED / "software").iterdir() if path.is_dir())
PLAIN = (int, float, str, bytes, bool, type(None), list, tuple, dict, set)
each_task = pytest.mark.parametrize("folder", TASKS, ids=lambda folder: folder.name)


def touched_by_patch(folder: Path) -> list[str]:
    patch = (folder / "solution" / "oracle.patch").read_text()
    return [path.removeprefix("b/") for path in re.findall(r"^\+\+\+ (\S+)$", patch, re.MULTILINE)]


def added_by_patch(folder: Path) -> list[str]:
    patch = (folder / "solution" / "oracle.patch").read_text()
    return [line[1:].strip() for line in patch.splitlines() if line.startswith("+") and not line.startswith("+++")]


def lay(folder: Path, target: Path, *, is_solved: bool) -> str:
    """Copies the workspace and, for a solved one, applies the patch; what `patch` said."""
    shutil.copytree(folder / "environment" / "workspace", target)
    if not is_solved:
        return ""
    command = ["patch", "-p1", "-i", str(folder / "solution" / "oracle.patch")]
    return subprocess.run(command, cwd=target, check=True, capture_output=True, text=True).stdout


def failed_tests(tree: Path) -> int:
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stdout
    found = re.search(r"(\d+) failed", run.stdout)
    return int(found[1]) if found else 0


def is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return type(value) is dict and all(is_plain(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set):
        return type(value) in PLAIN and all(map(is_plain, value))
    return type(value) in PLAIN


@each_task
def test_a_task_can_be_loaded_and_has_all_its_parts(folder):
    task = load_code_task(folder)
    assert task.task_id == f"trunkline/{folder.name}"
    assert task.hidden_tests is not None and task.heldout is not None
    assert len(task.instruction) > 300
    assert {path.split("/")[0] for path in judged_sources(task)} == {"tests"}
    for script in (folder / "solution" / "solve.sh", folder / "tests" / "test.sh"):
        assert os.access(script, os.X_OK), script


@each_task
def test_nothing_is_left_over_in_a_task(folder):
    suffixes = {path.suffix or path.name for path in folder.rglob("*") if path.is_file()}
    assert suffixes == {".md", ".toml", ".py", ".sh", ".patch", "Dockerfile"}
    assert not [path for path in folder.rglob("*") if path.name.startswith((".", "__pycache__")) or path.is_symlink()]


@each_task
def test_the_solution_applies_without_searching(folder, tmp_path):
    said = lay(folder, tmp_path / "solved", is_solved=True)
    assert "patching file" in said
    assert "fuzz" not in said and "offset" not in said
    assert not [path for path in (tmp_path / "solved").rglob("*") if path.suffix in (".orig", ".rej")]


@each_task
def test_the_solution_changes_source_alone(folder):
    task = load_code_task(folder)
    for path in touched_by_patch(folder):
        assert path.endswith(".py") and "test" not in path and "conf" not in Path(path).name, path
        assert any(root == "." or path.startswith(f"{root}/") for root in task.settings.import_roots), path


@each_task
def test_the_instruction_does_not_hold_the_solution(folder):
    instruction = " ".join((folder / "instruction.md").read_text().split())
    told = [line for line in added_by_patch(folder) if len(line) > 24 and " ".join(line.split()) in instruction]
    assert told == []


@each_task
def test_heldout_calls_are_plain_data_drawn_from_a_seed(folder):
    draw = runpy.run_path(str(folder / "tests" / "heldout.py"))["calls"]
    calls = list(draw(random.Random(5)))
    assert 20 <= len(calls) <= 60
    assert all(map(is_plain, calls))
    assert calls == list(draw(random.Random(5)))
    assert calls != list(draw(random.Random(6)))


@pytest.mark.parametrize("name", ["page-caption", "wrap-text"])
def test_hidden_tests_fail_before_and_pass_after(name, tmp_path):
    folder = SHIPPED / "software" / name
    for is_solved in (False, True):
        tree = tmp_path / str(is_solved)
        lay(folder, tree, is_solved=is_solved)
        shutil.copytree(folder / "tests" / "tree", tree, dirs_exist_ok=True)
        assert (failed_tests(tree) == 0) is is_solved


def test_the_list_of_tasks_is_complete():
    rows = re.findall(r"^\| \[([a-z-]+)\]\(software/\1/instruction\.md\) \| (\w+) \|", (SHIPPED / "README.md").read_text(), re.MULTILINE)
    assert rows == [(folder.name, load_code_task(folder).settings.kind) for folder in TASKS]
