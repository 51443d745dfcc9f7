"""Faults put into a small project: kept if tests show them, told by what goes wrong, repaired by the solution."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.factory_shop import SOURCE, TESTS, ground_at, write_project
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.python import PythonLanguage
from trunkline.tasks.factory.variants.inject import Ground, Injecting, faults_in, ground_of, inject
from trunkline.tasks.swe.tree import lay_tree

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Scene:
    """A project that is ready for faults."""

    language: PythonLanguage
    """Runs it."""
    ground: Ground
    """As it is right."""
    folder: Path
    """For what is made."""

    tried: list[str] = field(default_factory=list)
    """What became of all faults so far."""

    async def made(self, wanted: Injecting = Injecting(), seed: int = 0) -> list[Draft]:
        """Drafts in a folder of their own."""
        where = self.folder / str(len(list(self.folder.iterdir())))
        return await inject(self.language, self.ground, folder=where, rng=random.Random(seed), wanted=wanted, on_try=self.tried.append)


@pytest.fixture(scope="module")
async def scene(sandboxes: IsolatedSandboxes, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    language, made = PythonLanguage(sandboxes), folder / "made"
    made.mkdir()
    return Scene(language, await ground_at(language, write_project(folder / "tree")), made)


@pytest.fixture(scope="module")
async def drafts(scene: Scene) -> list[Draft]:
    """Two, for all who look at some and leave them as they are."""
    return await scene.made(Injecting(limit=2, tells="file"))


async def test_fault_breaks_tests_that_the_solution_repairs(scene: Scene, drafts: list[Draft], tmp_path: Path) -> None:
    for number, draft in enumerate(drafts):
        before, after = tmp_path / f"before-{number}", tmp_path / f"after-{number}"
        lay_tree(before, pristine=draft.workspace, changes=draft.hidden_tests)
        lay_tree(after, pristine=before, changes=draft.solution)
        was, becomes = [await scene.language.run(draft.environment, (tree,), draft.test_files, timeout_s=60) for tree in (before, after)]
        assert draft.tested.fail_to_pass and set(draft.tested.fail_to_pass) == becomes.passed - was.passed
        assert draft.tested.pass_to_pass and set(draft.tested.pass_to_pass) == becomes.passed & was.passed
        assert (after / "shop.py").read_text() == SOURCE
    assert number == 1


async def test_broken_tests_leave_the_workspace_and_the_rest_of_it_passes(scene: Scene, drafts: list[Draft]) -> None:
    draft = drafts[0]
    left = await scene.language.run(draft.environment, (draft.workspace,), draft.test_files, timeout_s=60)
    assert left.outcomes and left.passed == set(left.outcomes)
    assert not left.passed & set(draft.tested.fail_to_pass)
    assert [change.content.decode() for change in draft.hidden_tests] == [TESTS]


async def test_broken_tests_stay_if_that_is_wanted(scene: Scene) -> None:
    (draft,) = await scene.made(Injecting(limit=1, hides_tests=False))
    assert draft.hidden_tests == () and (draft.workspace / "tests" / "test_shop.py").read_text() == TESTS
    assert "left out" not in draft.instruction


async def test_statement_tells_what_fails_and_not_the_fault(drafts: list[Draft]) -> None:
    for draft in drafts:
        assert "`shop.py`" in draft.instruction and "```python\nassert " in draft.instruction
        assert draft.facts["function"] not in draft.instruction.partition("```python")[0]
        wrong = (draft.workspace / "shop.py").read_text().splitlines()[int(draft.facts["line"].partition(":")[2]) - 1].strip()
        assert wrong and wrong not in draft.instruction


async def test_statement_names_the_function_if_that_is_wanted(scene: Scene) -> None:
    (draft,) = await scene.made(Injecting(limit=1, tells="function"))
    assert f"`{draft.facts['function']}` in `shop.py`" in draft.instruction and "> The " in draft.instruction


@pytest.mark.slow
async def test_same_draws_give_the_same_tasks(scene: Scene) -> None:
    once, again = await scene.made(seed=1), await scene.made(seed=1)
    assert [draft.name for draft in once] == [draft.name for draft in again] != []


async def test_faults_of_functions_that_no_test_names_are_not_tried(scene: Scene) -> None:
    found = faults_in(scene.language, scene.ground.tree, scene.ground.test_files)
    assert {fault.function for fault in found} == {"total", "cheapest"}


@pytest.mark.slow
async def test_fault_that_breaks_too_much_is_no_task(scene: Scene) -> None:
    anew = replace(scene, tried=[])
    assert await anew.made(Injecting(most_broken=0.1)) == []
    assert "too many tests break" in anew.tried


async def test_project_whose_tests_cannot_run_gives_no_task(scene: Scene, tmp_path: Path) -> None:
    broken = replace(scene.ground, tree=write_project(tmp_path / "tree", tests="def test_(:\n"))
    assert await replace(scene, ground=broken).made() == []


async def test_ground_of_a_draft_is_the_project_after_its_change(drafts: list[Draft], tmp_path: Path) -> None:
    ground = await ground_of(drafts[0], tmp_path / "ground")
    assert (ground.tree / "shop.py").read_text() == SOURCE and (ground.tree / "tests" / "test_shop.py").read_text() == TESTS
