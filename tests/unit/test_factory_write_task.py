"""Drafts become task directories that load, whole or not at all, and hold nothing of the time after."""

from __future__ import annotations

import dataclasses
import datetime as dt
import tomllib
from pathlib import Path

import pytest

from tests.plain_python import PlainEnvironment, PlainPython
from trunkline.errors import TaskError
from trunkline.tasks.factory import draft as drafts
from trunkline.tasks.factory.candidate import Candidate, Rejection, SourceText
from trunkline.tasks.factory.change import Change
from trunkline.tasks.factory.write_task import write_task
from trunkline.tasks.swe.task import load_code_task
from trunkline.types import FileChange

SHOP = (
    "def total(prices):\n"
    + "".join(f"    # step {number} of what a till does with prices\n" for number in range(9))
    + "    return sum(prices)\n"
)
CURED = SHOP.replace("sum(prices)", "max(0, sum(prices))")
TEST = "from shop import total\n\ndef test_total():\n    assert total([1, 2]) == 3\n"
MORE = TEST + "\ndef test_never_below_0():\n    assert total([-1]) == 0\n"
CHANGES = "# 1.0\n\n- The first of all versions of it\n"
BEFORE = {"shop.py": SHOP, "tests/test_shop.py": TEST, "CHANGES.md": CHANGES, "setup.cfg": "[metadata]\nname = corner_shop\n"}
ENTRY = "- Totals are never below zero, even of returns\n"
AFTER = BEFORE | {"shop.py": CURED, "tests/test_shop.py": MORE, "CHANGES.md": f"# 1.1\n\n{ENTRY}\n{CHANGES}"}


def lay(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def draft_of(folder: Path, before: dict[str, str] | None = None, after: dict[str, str] | None = None, **changed) -> drafts.Draft:
    """Of a change between two trees that are laid in `folder`."""
    workspace = lay(folder / "before", BEFORE | (before or {}))
    change = Change.between(workspace, lay(folder / "after", AFTER | (after or {})), PlainPython())
    candidate = Candidate(
        "shop-1",
        "corner/shop",
        "1" * 40,
        "2" * 40,
        dt.datetime(2021, 3, 1, tzinfo=dt.UTC),
        (SourceText("commit", "Fix", ""),),
        {"licence": "MIT"},
    )
    draft = drafts.Draft(
        name="shop-1",
        kind="bug",
        candidate=candidate,
        workspace=workspace,
        solution=change.solution,
        hidden_tests=change.hidden_tests,
        test_files=("tests/test_shop.py",),
        tested=drafts.Tested(("tests/test_shop.py::test_never_below_0",), ("tests/test_shop.py::test_total",)),
        environment=PlainEnvironment(),
        instruction="Totals are never negative.",
        facts={"recipe": "plain"},
    )
    return dataclasses.replace(draft, **changed)


def cause_of(folder: Path, draft: drafts.Draft) -> tuple[str, str]:
    with pytest.raises(Rejection) as caught:
        write_task(draft, folder / "out")
    assert caught.value.stage == "write"
    assert list((folder / "out").glob("*")) == [], "nothing of a rejected task stays"
    return caught.value.cause, caught.value.detail


def test_a_draft_becomes_a_task_that_loads(tmp_path):
    folder = write_task(draft_of(tmp_path), tmp_path / "out")
    task = load_code_task(folder)
    assert (folder.name, task.task_id, task.instruction) == ("shop-1", "mined/shop-1", "Totals are never negative.\n")
    assert task.settings.fail_to_pass == ("tests/test_shop.py::test_never_below_0",)
    assert task.settings.pass_to_pass == ("tests/test_shop.py::test_total",)
    assert (task.settings.test_files, task.settings.timeout_s) == (("tests/test_shop.py",), 20)
    assert (task.workspace / "shop.py").read_text() == SHOP
    assert (task.hidden_tests / "tests/test_shop.py").read_text() == MORE
    assert "max(0, sum(prices))" in (task.solution / "oracle.patch").read_text()
    assert (task.solution / "solve.sh").stat().st_mode & 0o111


def test_what_is_known_of_its_making_is_in_its_metadata(tmp_path):
    folder = write_task(draft_of(tmp_path), tmp_path / "out")
    facts = tomllib.loads((folder / "task.toml").read_text())["metadata"]["factory"]
    assert facts["project"] == "corner/shop"
    assert (facts["before"], facts["after"], facts["variant"]) == ("1" * 40, "2" * 40, "mined")
    assert (facts["licence"], facts["recipe"], facts["date"]) == ("MIT", "plain", "2021-03-01T00:00:00+00:00")


def test_files_of_the_environment_win(tmp_path):
    own = PlainEnvironment(more_files={"tests/test.sh": "#!/bin/sh\necho 1\n", "environment/npm/package.json": "{}"})
    folder = write_task(draft_of(tmp_path, environment=own), tmp_path / "out")
    assert (folder / "tests/test.sh").read_text() == "#!/bin/sh\necho 1\n"
    assert (folder / "environment/npm/package.json").is_file()


def test_a_draft_without_tests_has_no_lists_and_no_tree(tmp_path):
    draft = draft_of(tmp_path, hidden_tests=(), test_files=(), tested=drafts.Tested((), ()))
    folder = write_task(draft, tmp_path / "out")
    assert sorted(path.name for path in (folder / "tests").iterdir()) == ["test.sh"]
    assert "fail_to_pass" not in (folder / "task.toml").read_text()


def test_held_out_inputs_lie_beside_the_tests(tmp_path):
    text = "def calls(rng):\n    yield [1]\n\n\ndef observe(call):\n    return call\n"
    folder = write_task(draft_of(tmp_path, heldout=text), tmp_path / "out")
    assert load_code_task(folder).heldout.read_text() == text


def test_caches_and_version_control_are_not_copied(tmp_path):
    draft = draft_of(tmp_path)
    lay(draft.workspace, {".git/HEAD": "ref", "__pycache__/shop.pyc": "x"})
    folder = write_task(draft, tmp_path / "out")
    assert sorted(path.name for path in (folder / "environment/workspace").iterdir()) == ["CHANGES.md", "setup.cfg", "shop.py", "tests"]


def test_a_task_that_is_there_is_not_written_over(tmp_path):
    draft = draft_of(tmp_path)
    write_task(draft, tmp_path / "out")
    with pytest.raises(TaskError, match="is there already"):
        write_task(draft, tmp_path / "out")


def test_a_link_in_the_workspace_is_odd(tmp_path):
    draft = draft_of(tmp_path)
    (draft.workspace / "link").symlink_to("shop.py")
    assert cause_of(tmp_path, draft) == ("odd files", "link is a link, a device, or a name that no workspace has")


def test_a_draft_without_an_instruction_is_no_task(tmp_path):
    with pytest.raises(Rejection, match="no instruction"):
        write_task(draft_of(tmp_path, instruction=" "), tmp_path / "out")


def test_settings_that_no_task_has_are_told(tmp_path):
    cause, detail = cause_of(tmp_path, draft_of(tmp_path, environment=dataclasses.replace(PlainEnvironment(), recipe=Nowhere())))
    assert cause == "not a task"
    assert "there is no 'nowhere'" in detail


class Nowhere:
    """A recipe of a directory that is not there."""

    root, words = "nowhere", "nowhere"


def test_a_solution_that_changes_nothing_is_no_patch(tmp_path):
    same = (FileChange("shop.py", "file", 0o644, SHOP.encode()),)
    assert cause_of(tmp_path, draft_of(tmp_path, solution=same))[0] == "the solution is no patch"


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("copy.py", CURED, "a file of the solution: workspace/copy.py"),
        ("fix.patch", "+    return max(0, sum(prices))\n", "a patch with lines of the solution: workspace/fix.patch"),
        ("docs/changelog.md", ENTRY, "an entry of the changelog: workspace/docs/changelog.md"),
        ("shop.py.orig", "x", "a history: workspace/shop.py.orig"),
        ("all.bin", "# v2 git bundle\n", "a history: workspace/all.bin"),
        ("dist/corner_shop-1.1-py3-none-any.whl", "x", "a release of the project: workspace/dist/corner_shop-1.1-py3-none-any.whl"),
        ("shop-1.1.tar.gz", "x", "a release of the project: workspace/shop-1.1.tar.gz"),
        ("deps/packed-refs", "x", "a history: workspace/deps/packed-refs"),
    ],
)
def test_what_tells_of_the_time_after_is_found(tmp_path, path, text, found):
    draft = draft_of(tmp_path)
    lay(draft.workspace, {path: text})
    assert cause_of(tmp_path, draft) == ("the workspace holds the future", found)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("workshop-1.1.tar.gz", "x"),
        ("shop-floor.zip", "x"),
        ("old.patch", "+    something quite different, long ago\n"),
        ("history.py", ENTRY),
    ],
)
def test_what_only_looks_like_it_is_let_be(tmp_path, path, text):
    draft = draft_of(tmp_path)
    lay(draft.workspace, {path: text})
    assert write_task(draft, tmp_path / "out").is_dir()


def test_a_file_that_the_change_moves_is_no_future(tmp_path):
    draft = draft_of(tmp_path, before={"old.py": SHOP.replace("total", "sums")}, after={"new.py": SHOP.replace("total", "sums")})
    (tmp_path / "after/old.py").unlink(missing_ok=True)
    moved = (*draft.solution, FileChange("old.py", "deleted"))
    assert write_task(dataclasses.replace(draft, solution=moved), tmp_path / "out").is_dir()


def test_the_project_among_its_packages_is_found(tmp_path):
    lock = f"""
        python = "3.11"
        [[files]]
        name = "corner-shop"
        version = "1.1"
        url = "https://files.example.org/corner_shop-1.1-py3-none-any.whl"
        sha256 = "{"0" * 64}"
        """
    own = PlainEnvironment(more_files={"environment/python.toml": lock})
    cause, detail = cause_of(tmp_path, draft_of(tmp_path, environment=own))
    assert (cause, detail) == (
        "the workspace holds the future",
        "the project itself, version 1.1, among its packages: environment/python.toml",
    )


def test_the_project_among_packages_of_npm_is_found(tmp_path):
    lock = '{"packages": {"": {}, "node_modules/a": {}, "node_modules/a/node_modules/shop": {"version": "2.0.0"}}}'
    own = PlainEnvironment(more_files={"environment/npm/package-lock.json": lock})
    assert (
        cause_of(tmp_path, draft_of(tmp_path, environment=own))[1]
        == "the project itself among its packages: environment/npm/package-lock.json"
    )
