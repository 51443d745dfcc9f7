"""`trunkline tasks`: what docs/11-certified-rewards.md tells its reader to type, from a new task to its certificate."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trunkline.errors import TaskError, TrunklineError
from trunkline.run.cli import app

SHIPPED = Path(__file__).parents[2] / "tasks" / "software"
FIX = """\
--- a/middle.py
+++ b/middle.py
@@ -5,4 +5,5 @@
     if not numbers:
         raise ValueError("the median of nothing")
-    return sorted(numbers)[len(numbers) // 2]
+    numbers = sorted(numbers)
+    return numbers[len(numbers) // 2] if len(numbers) % 2 else sum(numbers[len(numbers) // 2 - 1 : len(numbers) // 2 + 1]) / 2
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks") / "my-task"
    assert "certify" in said("new", folder)
    return folder


@pytest.fixture(scope="module")
def certified(task: Path) -> str:
    return said("certify", task, "--repeats", 2)


def said(*words: object, stdin: str | None = None, status: int = 0) -> str:
    result = CliRunner().invoke(app, ["tasks", *map(str, words)], input=stdin)
    if isinstance(result.exception, TrunklineError):
        raise result.exception
    assert result.exit_code == status, (result.output, result.exception)
    return result.output


def verdict(task: Path, *words: object, stdin: str | None = None) -> dict:
    return json.loads(said("verify", task, "--json", *words, stdin=stdin).splitlines()[-1])


def test_a_new_task_certifies_as_it_is_and_a_second_call_has_nothing_to_do(task, certified):
    assert "certified local/my-task" in certified and "1 of 1 tasks have a certificate" in certified
    assert "has one   local/my-task" in said("certify", task)
    assert re.search(r"local/my-task +bug +its tests +yes +2 +3 +yes", said("list", task.parent))


def test_show_tells_what_was_tried_and_what_is_not_excluded(task, certified):
    text = said("show", task)
    for words in (
        "median([1, 2, 3, 4])",
        "must earn 1: oracle",
        "must earn 0: no-op",
        "must earn 0: always-equal",
        "excluded: attacks that",
    ):
        assert words in text
    assert json.loads(said("show", task, "--json"))["subject"] == "local/my-task"


def test_verify_judges_nothing_the_solution_a_patch_and_a_folder(task, certified, tmp_path):
    assert verdict(task)["verdict"]["value"] == 0
    assert verdict(task, "--oracle")["verdict"]["value"] == 1
    assert verdict(task, "--patch", "-", stdin=FIX)["verdict"]["value"] == 1
    left = tmp_path / "left"
    shutil.copytree(task / "environment" / "workspace", left)
    (left / "conftest.py").write_text("def pytest_collection_modifyitems(items):\n    items.clear()\n")
    judged = verdict(task, "--workspace", left)
    assert (judged["verdict"]["value"], judged["is_certified"]) == (0, True)
    assert "conftest.py (tests come from the task)" in judged["verdict"]["evidence"]


def test_a_patch_that_does_not_apply_is_told_as_such(task, certified):
    with pytest.raises(TrunklineError, match="cannot be laid over the workspace of local/my-task"):
        said("verify", task, "--patch", "-", stdin=FIX.replace("return sorted", "return unsorted"))


def test_an_edited_task_has_no_certificate_any_more(task, certified, tmp_path):
    other = tmp_path / "my-task"
    shutil.copytree(task, other)
    (other / "instruction.md").write_text("Something else.\n")
    assert re.search(r"local/my-task +bug +its tests +no", said("list", other))


def test_export_has_the_tests_that_certifying_found(task, certified, tmp_path):
    assert "1 instances" in said("export", task, "--out", tmp_path / "instances.jsonl")
    (line,) = (tmp_path / "instances.jsonl").read_text().splitlines()
    instance = json.loads(line)
    assert "ordered[upper - 1]" in instance["patch"] and "test_the_middle_of_four" in instance["test_patch"]
    names = [name.rpartition("::")[2] for name in json.loads(instance["FAIL_TO_PASS"])]
    assert names == ["test_the_middle_of_four", "test_two_that_are_far_apart"]


def test_every_shipped_task_is_listed():
    assert said("list", SHIPPED).count("trunkline/") == len(list(SHIPPED.glob("*/task.toml"))) >= 12


def test_wrong_places_are_named(tmp_path):
    with pytest.raises(TaskError, match="there is no task.toml"):
        said("list", tmp_path)
    (tmp_path / "my-task").mkdir()
    with pytest.raises(TaskError, match="is there already"):
        said("new", tmp_path / "my-task")
    with pytest.raises(TaskError, match="small letters"):
        said("new", tmp_path / "My Task")
