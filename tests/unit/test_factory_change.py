"""Two trees become a solution, hidden tests, and what no verdict lays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plain_python import PlainPython
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.change import Change

BEFORE = {"shop.py": "A = 1\n", "old.py": "", "tests/test_shop.py": "", "tests/test_old.py": ""}


def lay(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def between(folder: Path, after: dict[str, str]) -> Change:
    return Change.between(lay(folder / "before", BEFORE), lay(folder / "after", after), PlainPython())


def test_tests_are_hidden_and_the_rest_is_the_solution(tmp_path):
    after = {"shop.py": "A = 2\n", "setup.cfg": "[metadata]\n", "tests/test_shop.py": "pass\n", "tests/data.txt": "x"}
    change = between(tmp_path, after)
    assert [(one.path, one.kind) for one in change.solution] == [("old.py", "deleted"), ("setup.cfg", "file"), ("shop.py", "file")]
    assert [one.path for one in change.hidden_tests] == ["tests/data.txt", "tests/test_shop.py"]


def test_a_deleted_test_stays(tmp_path):
    change = between(tmp_path, {"shop.py": "A = 2\n", "old.py": "", "tests/test_shop.py": ""})
    change.lay(tmp_path / "laid", tmp_path / "before", is_solved=True)
    assert (tmp_path / "laid/tests/test_old.py").is_file()


def test_what_no_verdict_lays_is_dropped_with_a_reason(tmp_path):
    change = between(tmp_path, BEFORE | {"shop.py": "A = 2\n", ".github/workflows/ci.yml": "on: push\n"})
    assert [one.path for one in change.solution] == ["shop.py"]
    assert [one.path for one in change.dropped] == [".github/workflows/ci.yml"]


def test_an_executable_file_stays_so(tmp_path):
    lay(tmp_path / "after", {"run.py": ""})
    (tmp_path / "after/run.py").chmod(0o755)
    change = between(tmp_path, BEFORE | {"shop.py": "A = 2\n"})
    assert {one.path: one.mode for one in change.solution} == {"run.py": 0o755, "shop.py": 0o644}


def test_trees_that_differ_in_tests_alone_are_no_change_of_source(tmp_path):
    with pytest.raises(Rejection, match="changes no source"):
        between(tmp_path, BEFORE | {"tests/test_shop.py": "pass\n"})


def test_before_and_after_are_laid_with_the_same_tests(tmp_path):
    change = between(tmp_path, BEFORE | {"shop.py": "A = 2\n", "tests/test_shop.py": "pass\n"})
    for name, is_solved in (("unsolved", False), ("solved", True)):
        change.lay(tmp_path / name, tmp_path / "before", is_solved=is_solved)
    assert (tmp_path / "unsolved/shop.py").read_text() == "A = 1\n"
    assert (tmp_path / "solved/shop.py").read_text() == "A = 2\n"
    assert (tmp_path / "unsolved/tests/test_shop.py").read_text() == (tmp_path / "solved/tests/test_shop.py").read_text() == "pass\n"
