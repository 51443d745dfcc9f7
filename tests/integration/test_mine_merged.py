"""`trunkline tasks mine --variants merge`: two valid neighbours become a third task, and the same command takes it up where it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.git_project import GitProject
from tests.in_process import trunkline
from trunkline.tasks.factory.ledger import Ledger
from trunkline.tasks.swe.task import CodeTask, load_code_task

SHOP = '''\
def total(prices):
    """The sum of all prices."""
    return sum(prices)


def longest(names):
    """The longest name, "" of none."""
    return max(names, key=len)
'''
ONE = SHOP.replace("return sum(prices)", "return max(0, sum(prices))")
BOTH = ONE.replace("key=len)", 'key=len, default="")')
TEST_TOTAL = "from shop import total\n\n\ndef test_total():\n    assert total([1, 2]) == 3\n"
TEST_LONGEST = "from shop import longest\n\n\ndef test_longest():\n    assert longest(['a', 'bc']) == 'bc'\n"
LEAKING = """\
Fix total of returns

A total of returns is below zero today, which no till can show, and whoever closes the day has to write a zero over it by hand. It has
to be zero where more was taken back than sold. Use `max(0, sum(prices))` for it.
"""


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two changes of one file, and what lies in DIR after two calls."""
    folder = tmp_path_factory.mktemp("merged")
    project = GitProject(folder / "shop")
    project.commit(
        "Begin",
        {
            "shop.py": SHOP,
            "setup.cfg": "[metadata]\nname = shop\n",
            "tests/test_total.py": TEST_TOTAL,
            "tests/test_longest.py": TEST_LONGEST,
        },
    )
    more = f"{TEST_TOTAL}\n\ndef test_returns():\n    assert total([2, -7]) == 0\n"
    project.commit(LEAKING, {"shop.py": ONE, "tests/test_total.py": more})
    more = f"{TEST_LONGEST}\n\ndef test_longest_of_none():\n    assert longest([]) == ''\n"
    project.commit("Fix longest of no names", {"shop.py": BOTH, "tests/test_longest.py": more})
    out = folder / "out"
    words = ("tasks", "mine", str(project.folder), "--out", str(out), "--jobs", "1", "--variants", "merge")
    trunkline(*words)
    lines = (out / "candidates.jsonl").read_bytes()
    assert "valid                 2" in trunkline(*words).stdout
    assert (out / "candidates.jsonl").read_bytes() == lines, "a second call does nothing again"
    return out


def merged_task(out: Path) -> CodeTask:
    (folder,) = [folder for folder in (out / "tasks").iterdir() if "-and-" in folder.name]
    return load_code_task(folder)


def test_two_neighbours_become_a_third_task_that_needs_both(mined: Path) -> None:
    task = merged_task(mined)
    assert set(task.settings.fail_to_pass) == {"tests/test_total.py::test_returns", "tests/test_longest.py::test_longest_of_none"}
    assert (task.workspace / "shop.py").read_text() == SHOP
    assert "A total of returns is below zero today" in task.instruction
    assert "Fix longest of no names" in task.instruction
    assert task.instruction.count("How it is checked") == 1


def test_a_pair_has_its_line_and_is_counted_apart_from_candidates(mined: Path) -> None:
    entries = Ledger(mined).entries().values()
    (pair,) = [entry for entry in entries if entry.merges]
    assert set(pair.merges) == {entry.candidate_id for entry in entries if entry.is_valid}
    assert [made.variant for made in pair.made] == ["merged"] and not pair.rejected
    report = json.loads((mined / "report.json").read_text())
    assert (report["candidates"], report["valid"], report["pairs_tried"]) == (2, 2, 1)
    assert report["variants"] == {"merged": {"written": 1, "tried": 0, "certified": 0}}
    assert report["pairs_cpu_s_median"] > 0


def test_what_was_cut_of_a_statement_is_in_the_record_and_not_in_the_task(mined: Path) -> None:
    cut = [entry.facts["cut"] for entry in Ledger(mined).entries().values() if "cut" in entry.facts]
    assert len(cut) == 2, "of the candidate, and of the pair"
    assert all("max ( 0 , sum ( prices )" in words for words in cut)
    task = merged_task(mined)
    assert "cut" not in (task.folder / "task.toml").read_text()
    assert "sum(prices)" not in task.instruction
