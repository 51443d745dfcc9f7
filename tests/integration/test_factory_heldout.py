"""Held-out inputs for drafts: drawn from what tests pass, firm for the solution, and telling it from the fault."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.factory_shop import SOURCE, TESTS, ground_at, write_project
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.factory.python import PythonBuilt, PythonLanguage
from trunkline.tasks.factory.variants.heldout import HeldOut, heldout_of
from trunkline.tasks.factory.variants.inject import Injecting, inject
from trunkline.tasks.swe.place import VerdictPlace

pytestmark = pytest.mark.anyio


async def heldout(sandboxes: IsolatedSandboxes, folder: Path, source: str = SOURCE, tests: str = TESTS) -> HeldOut | None:
    """Of a fault in `total`."""
    language = PythonLanguage(sandboxes)
    ground = await ground_at(language, write_project(folder / "tree", source, tests))
    found = await inject(language, ground, folder=folder / "made", rng=random.Random(0), wanted=Injecting(limit=2))
    draft = next(one for one in found if one.facts["function"] == "total")
    assert isinstance(draft.environment, PythonBuilt)
    return await heldout_of(draft, VerdictPlace(sandboxes, draft.environment.python))


async def test_calls_of_the_changed_function_tell_the_fault(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    found = await heldout(sandboxes, tmp_path)
    assert found is not None and found.functions == ("shop:total",)
    assert found.num_calls > 100 and found.num_differing > 0
    assert "'shop:total': [" in found.text and "SEEN: " not in found.text


@pytest.mark.slow
async def test_function_whose_answers_change_gives_none(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    restless = SOURCE.replace("return sum(", "return (__import__('random').random() if len(prices) > 3 else 0) + sum(")
    found = await heldout(sandboxes, tmp_path, restless)
    assert found is None


@pytest.mark.slow
async def test_tests_that_pass_no_plain_data_give_none(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    tests = TESTS.replace("total([", "total(price for price in [").replace("total(price for price in [])", "total(iter(()))")
    assert await heldout(sandboxes, tmp_path, tests=tests) is None
