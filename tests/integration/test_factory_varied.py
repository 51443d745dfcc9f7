"""Examples with other values than a test has: right for the solution, wrong before the change, and not what the test looks for."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.coupon_draft import coupon_draft
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.draft import Tested as Outcomes
from trunkline.tasks.factory.python import PythonBuilt, PythonLanguage
from trunkline.tasks.factory.statement import write_statement
from trunkline.tasks.factory.varied import varied_tests
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.types import FileChange

pytestmark = pytest.mark.anyio

HIDDEN = """\
import pytest
from shop import total


def test_percent():
    "Ten of a hundred."
    prices = [4230, 6170]
    expected = 9360
    assert expected == total(prices, 10)


class TestLimits:
    def test_never_below_nothing(self):
        assert total([100], 150) == 0


def test_two():
    assert total([4230], 10) == 3807
    assert total([6170], 10) == 5553


@pytest.mark.parametrize("coupon", [20, 30])
def test_table(coupon):
    assert total([100], coupon) == 100 - coupon
"""
PATH = "tests/test_coupon.py"
TURNING = ("test_percent", "TestLimits::test_never_below_nothing", "test_two", "test_table[20]", "test_table[30]")


@pytest.fixture
async def draft(sandboxes: IsolatedSandboxes, tmp_path: Path) -> Draft:
    made = await coupon_draft(tmp_path, PythonLanguage(sandboxes))
    hidden = (FileChange(PATH, "file", 0o644, HIDDEN.encode()),)
    return replace(made, hidden_tests=hidden, tested=Outcomes(tuple(f"{PATH}::{name}" for name in TURNING), ()), instruction="")


async def test_the_claim_of_a_test_is_shown_with_other_values_that_hold(draft: Draft, sandboxes: IsolatedSandboxes) -> None:
    assert isinstance(draft.environment, PythonBuilt)
    place = VerdictPlace(sandboxes, draft.environment.python)
    varied = await varied_tests(draft, place)

    functions = {node.name: ast.unparse(node) for node in ast.parse(varied[PATH]).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    as_they_are = {node.name: ast.unparse(node) for node in ast.parse(HIDDEN).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    changed = {name for name, text in functions.items() if text != as_they_are[name]}
    assert changed == {"test_percent"}, "one answer is 0 whatever the prices are, one test has two claims, one a table"
    assert functions["test_percent"].startswith("def test_percent") and "9360" not in functions["test_percent"]
    assert "expected =" not in functions["test_percent"]

    namespace: dict[str, Any] = {}
    exec(draft.solution[0].content.decode(), namespace)
    exec(functions["test_percent"], namespace)
    namespace["test_percent"]()
    exec((draft.workspace / "shop" / "__init__.py").read_text(), namespace)
    with pytest.raises(AssertionError):
        namespace["test_percent"]()

    async def varying() -> dict[str, str]:
        return varied

    told = await write_statement(draft, varying=varying)
    assert "9360" not in told.text and "total(prices" in told.text and told.told_by == "tests"
