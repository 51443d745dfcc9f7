"""Two changes of a small project as one task: both are needed, and together they turn the tests of both."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.factory_shop import SOURCE, TESTS, mined_draft, write_project
from tests.plain_python import PlainPython
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.change import Change
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.python import PythonLanguage
from trunkline.tasks.factory.variants.merge import Laid, check_apart, merge

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
    states = [f'{source}\n\nVERSION = "{number}"\n' for number, source in enumerate((NEITHER, NO_GUARD, SOURCE))]
    older, newer = await drafts(language, tmp_path, states, [FEW_TESTS, SOME_TESTS, TESTS])
    merged = await merge(language, older, newer, folder=tmp_path / "merged")
    assert set(merged.tested.fail_to_pass) == {"tests/test_shop.py::test_total", "tests/test_shop.py::test_cheapest_of_nothing"}
    assert "tests/test_shop.py::test_cheapest" in merged.tested.pass_to_pass
    assert [change.content.decode() for change in (*merged.solution, *merged.hidden_tests)] == [states[2], TESTS]
    assert (merged.workspace / "shop.py").read_text() == states[0]
    assert (merged.name, merged.variant) == ("shop-0-and-1", "merged")
    assert "Make shop-0." in merged.instruction and "Make shop-1." in merged.instruction
    assert merged.instruction.count("How it is checked") == 1


async def test_a_change_that_does_not_fit_onto_the_older_one_overlaps(tmp_path: Path) -> None:
    language = PlainPython()
    sources = [SOURCE.replace("price >= 0", f"price > {least}") for least in range(4)]
    trees = [write_project(tmp_path / f"state-{least}", source) for least, source in enumerate(sources)]
    first, second, third = (Laid(before, Change.between(before, after, language)) for before, after in itertools.pairwise(trees))
    await check_apart(language, first, second)
    with pytest.raises(Rejection, match=r"the changes overlap.*shop\.py"):
        await check_apart(language, first, third)


async def test_what_is_neither_source_nor_test_never_overlaps(tmp_path: Path) -> None:
    language = PlainPython()
    trees = [write_project(tmp_path / f"state-{number}", source) for number, source in enumerate((NEITHER, NO_GUARD, NO_GUARD, SOURCE))]
    for number, tree in enumerate(trees):
        (tree / "CHANGES.md").write_text(f"Changes\n\n{number}: more than {number}\n")
    older, newer = (Laid(before, Change.between(before, after, language)) for before, after in (trees[:2], trees[2:]))
    await check_apart(language, older, newer)


@pytest.mark.slow
async def test_change_that_no_test_needs_is_not_merged(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    language = PythonLanguage(sandboxes)
    without = NEITHER.replace("left < right", "left <= right")
    older, newer = await drafts(language, tmp_path, [without, NEITHER, NO_SIGN], [FEW_TESTS, SOME_TESTS, TESTS])
    with pytest.raises(Rejection, match="one change is enough"):
        await merge(language, older, newer, folder=tmp_path / "merged")


@pytest.mark.slow
async def test_a_newer_change_of_the_older_ones_tests_is_not_merged(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    language = PythonLanguage(sandboxes)
    more = SOME_TESTS.replace("    assert total([0]) == 0\n", "    assert total([0]) == 0\n    assert cheapest([]) is None\n")
    older, newer = await drafts(language, tmp_path, [NEITHER, NO_GUARD, SOURCE], [FEW_TESTS, SOME_TESTS, more])
    with pytest.raises(Rejection, match=r"the newer changes tests of the older \(tests/test_shop.py: test_total\)"):
        await merge(language, older, newer, folder=tmp_path / "merged")
