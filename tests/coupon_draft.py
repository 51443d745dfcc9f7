"""A valid change of a tiny project as mining leaves it: the coupon of software_task.py, told and tested, for variants of it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from tests.software_task import BUG, CURE, SHOP
from trunkline.tasks.factory.candidate import Candidate
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.draft import Tested as Outcomes
from trunkline.tasks.factory.python import PythonLanguage
from trunkline.types import FileChange

TOLD = "The coupon of `shop.total` is taken as cents. It is a percentage, and the sum is never below 0."
VISIBLE = """\
from shop import names, total


def test_plain():
    assert total([100, 250]) == 350


def test_names():
    assert names(["b", "a", "b"]) == ["a", "b"]
"""
HIDDEN = """\
from shop import total


def test_percent():
    assert total([400, 600], 10) == 900
    assert total([99], 50) == 49


def test_never_below_nothing():
    assert total([100], 150) == 0


def test_plain():
    assert total([100, 250]) == 350
"""
SOLUTION = f"""\
    subtotal = sum(prices)
    if coupon > 100:
        coupon = 100
    {CURE.replace("sum(prices)", "subtotal")}"""


async def coupon_draft(folder: Path, language: PythonLanguage) -> Draft:
    """The draft, its workspace in `folder`."""
    fixed, before = SHOP.replace(f"    {BUG}", SOLUTION), folder / "before"
    assert fixed != SHOP
    for path, text in {"shop/__init__.py": SHOP, "tests/test_shop.py": VISIBLE}.items():
        (before / path).parent.mkdir(parents=True)
        (before / path).write_text(text)
    date = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    recipe = language.recipes(before, date)[-1]
    test = "tests/test_coupon.py::"
    return Draft(
        name="coupon-1",
        kind="bug",
        candidate=Candidate("coupon-1", "test/coupon", "0", "1", date),
        workspace=before,
        solution=(FileChange("shop/__init__.py", "file", 0o644, fixed.encode()),),
        hidden_tests=(FileChange("tests/test_coupon.py", "file", 0o644, HIDDEN.encode()),),
        test_files=("tests/test_coupon.py", "tests/test_shop.py"),
        tested=Outcomes(
            (f"{test}test_percent", f"{test}test_never_below_nothing"), (f"{test}test_plain", "tests/test_shop.py::test_plain")
        ),
        environment=await language.build(recipe, before),
        instruction=TOLD,
    )
