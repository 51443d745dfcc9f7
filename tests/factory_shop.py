"""A small project for the factory's tests, and drafts of it. Owns no assertion."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from trunkline.tasks.factory.candidate import Candidate
from trunkline.tasks.factory.change import Change
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.factory.python import PythonLanguage
from trunkline.tasks.factory.variants.inject import Ground
from trunkline.tasks.factory.variants.reruns import Bench, compare
from trunkline.tasks.swe.tree import lay_tree

DATE = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
TEST_FILE = "tests/test_shop.py"
SOURCE = '''"""Prices."""


def total(prices):
    """The sum of all prices that are not negative."""
    return sum(price for price in prices if price >= 0)


def cheapest(prices):
    """The least price, None of nothing."""
    if not prices:
        return None
    return min(prices)


def unnamed(left, right):
    return left < right
'''
TESTS = """from shop import cheapest, total


def test_total():
    assert total([1, 2, -1]) == 3
    assert total([0]) == 0


def test_total_of_nothing():
    assert total([]) == 0


def test_cheapest():
    assert cheapest([2, 1, 3]) == 1


def test_cheapest_of_nothing():
    assert cheapest([]) is None
"""


def write_project(tree: Path, source: str = SOURCE, tests: str = TESTS) -> Path:
    """Its files, in a new directory."""
    (tree / "tests").mkdir(parents=True)
    (tree / "shop.py").write_text(source)
    (tree / TEST_FILE).write_text(tests)
    return tree


def candidate_of(name: str) -> Candidate:
    """A change of it."""
    return Candidate(name, "here/shop", "a", "b", DATE)


async def ground_at(language: PythonLanguage, tree: Path) -> Ground:
    """The project in this directory, ready for faults."""
    environment = await language.build(language.recipes(tree, DATE)[-1], tree)
    return Ground(candidate_of("shop-1234567890"), tree, environment, (TEST_FILE,))


async def mined_draft(language: PythonLanguage, name: str, before: Path, after: Path, folder: Path) -> Draft:
    """The change between two directories as a task; its workspace is written into `folder`."""
    change = Change.between(before, after, language)
    workspace = folder / name
    lay_tree(workspace, pristine=before)
    environment = await language.build(language.recipes(after, DATE)[-1], after)
    with_tests = folder / f"{name}-tests"
    change.lay(with_tests, before, is_solved=False)
    bench = Bench(language, environment, (TEST_FILE,), 60)
    return Draft(
        name=name,
        kind="bug",
        candidate=candidate_of(name),
        workspace=workspace,
        solution=change.solution,
        hidden_tests=change.hidden_tests,
        test_files=(TEST_FILE,),
        tested=compare([await bench.run(with_tests)], [await bench.run(after)]),
        environment=environment,
        instruction=f"Make {name}.\n",
    )
