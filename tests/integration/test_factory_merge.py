"""Two changes of a small project as one task: both are needed, and together they turn the tests of both."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.factory_shop import SOURCE, TESTS, mined_draft, write_project
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.python import PythonLanguage
from trunkline.tasks.factory.variants.merge import merge

pytestmark = pytest.mark.anyio

NO_SIGN = SOURCE.replace("price >= 0", "True")
NO_GUARD = SOURCE.replace("    if not prices:\n        return None\n", "")
NEITHER = NO_SIGN.replace("    if not prices:\n        return None\n", "")
FEW_TESTS = TESTS.partition("\n\ndef test_cheapest_of_nothing")[0].replace("[1, 2, -1]", "[1, 2]")
SOME_TESTS = TESTS.partition("\n\ndef test_cheapest_of_nothing")[0]


async def drafts(language: PythonLanguage, folder: Path, sources: list[str], tests: list[str]) -> list[Draft]:
    """Of states that follow each other."""
    trees = [write_project(folder / f"state-{place}", *state) for place, state in enumerate(zip(sources, tests, strict=True))]
    return [
        await mined_draft(language, f"shop-{place}", before, after, folder)
        for place, (before, after) in enumerate(itertools.pairwise(trees))
    ]


async def test_both_changes_are_one_task_on_the_older_state(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    language = PythonLanguage(sandboxes)
    older, newer = await drafts(language, tmp_path, [NEITHER, NO_GUARD, SOURCE], [FEW_TESTS, SOME_TESTS, TESTS])
    merged = await merge(language, older, newer, folder=tmp_path / "merged")
    assert set(merged.tested.fail_to_pass) == {"tests/test_shop.py::test_total", "tests/test_shop.py::test_cheapest_of_nothing"}
    assert "tests/test_shop.py::test_cheapest" in merged.tested.pass_to_pass
    assert [change.content.decode() for change in (*merged.solution, *merged.hidden_tests)] == [SOURCE, TESTS]
    assert (merged.workspace / "shop.py").read_text() == NEITHER
    assert (merged.name, merged.variant) == ("shop-0-and-1", "merged")
    assert "Make shop-0." in merged.instruction and "Make shop-1." in merged.instruction


async def test_changes_of_the_same_line_overlap(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    language = PythonLanguage(sandboxes)
    wrong = SOURCE.replace("price >= 0", "price > 1")
    older, newer = await drafts(language, tmp_path, [NO_SIGN, wrong, SOURCE], [FEW_TESTS, FEW_TESTS, TESTS])
    with pytest.raises(Rejection, match="the changes overlap"):
        await merge(language, older, newer, folder=tmp_path / "merged")


@pytest.mark.slow
async def test_change_that_no_test_needs_is_not_merged(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    language = PythonLanguage(sandboxes)
    without = NEITHER.replace("left < right", "left <= right")
    older, newer = await drafts(language, tmp_path, [without, NEITHER, NO_SIGN], [FEW_TESTS, SOME_TESTS, TESTS])
    with pytest.raises(Rejection, match="tests of one change are lost"):
        await merge(language, older, newer, folder=tmp_path / "merged")
