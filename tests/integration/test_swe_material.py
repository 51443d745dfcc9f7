"""What an attacker learns from a run of the solved workspace: tests that pass, and what changed functions answer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.attack_scene import ORACLE, SOURCE, TABLE, write_task
from trunkline.errors import TaskError
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.material import gather_material
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.task import load_code_task
from trunkline.types import FileChange

pytestmark = pytest.mark.anyio

_BASKET = """
import dataclasses
import fractions


class Refused(Exception):
    pass


@dataclasses.dataclass
class Basket:
    prices: list

    def total(self, discount):
        return {total}

    def add(self, price):
        self.prices.append(price)
        return {added}


def share(value):
    {check}return fractions.Fraction(1, value) if value else Basket([value])


def unspeakable():
    return {unspeakable}
"""
_TESTS = """
import pytest

from basket import Basket, Refused, share, unspeakable


def test_total():
    assert Basket([1, 2]).total(0.5) == 1.5


def test_add():
    basket = Basket([])
    assert basket.add(3) == 1
    assert basket.total(0) == 3


def test_share():
    assert share(2) + share(2) == 1
    assert share(0) == Basket([0])
    with pytest.raises(Refused):
        share(-1)


def test_unspeakable():
    assert unspeakable()


def test_that_fails():
    assert Basket([1]).total(0) == 2
"""


@pytest.fixture(scope="module")
def place(sandboxes: IsolatedSandboxes) -> VerdictPlace:
    return VerdictPlace(sandboxes, verdict_environment())


async def test_calls_of_changed_functions_are_recorded_with_their_answers(place: VerdictPlace, tmp_path: Path) -> None:
    material = await gather_material(write_task(tmp_path), place, ORACLE)
    (source,) = material.sources
    assert (source.path, source.module, source.functions) == (SOURCE, "pocket.totals", ("total",))
    assert source.table == {"total": TABLE}
    assert material.test_ids == tuple(
        f"tests/test_totals.py::{name}" for name in ("test_plain_sum", "test_discount", "test_whole_discount")
    )


async def test_answers_are_recorded_unless_they_cannot_be_written_or_the_call_changed_its_arguments(
    place: VerdictPlace, tmp_path: Path
) -> None:
    top = write_task(tmp_path).folder
    check = "if value < 0:\n        raise Refused('low')\n    "
    fixed = _BASKET.format(total="sum(self.prices) * (1 - discount)", added="len(self.prices)", check=check, unspeakable="object()")
    (top / "environment/workspace/basket.py").write_text(_BASKET.format(total="0", added="0", check="", unspeakable="None"))
    (top / "tests/tree/tests/test_totals.py").write_text(_TESTS)
    material = await gather_material(load_code_task(top), place, (FileChange("basket.py", "file", 0o644, fixed.encode()),))
    (source,) = material.sources
    assert source.functions == ("Basket.total", "Basket.add", "share", "unspeakable")
    assert source.table == {
        "Basket.total": {
            "((<Basket [('prices', [1, 2])]>, 0.5), [])": "tuple(['returns', 1.5])",
            "((<Basket [('prices', [3])]>, 0), [])": "tuple(['returns', 3])",
            "((<Basket [('prices', [1])]>, 0), [])": "tuple(['returns', 1])",
        },
        "share": {
            "((2,), [])": "tuple(['returns', __import__('fractions').Fraction(1, 2)])",
            "((0,), [])": "tuple(['returns', built(named('basket', 'Basket'), tuple([]), dict(list([tuple(['prices', list([0])])])))])",
            "((-1,), [])": "tuple(['raises', built(named('basket', 'Refused'), tuple(['low']), dict(list([])))])",
        },
    }
    assert "tests/test_totals.py::test_that_fails" not in material.test_ids


async def test_what_tests_call_is_recorded_where_they_call_it_though_the_change_lies_deeper(place: VerdictPlace, tmp_path: Path) -> None:
    task = write_task(tmp_path)
    receipt = "from pocket.totals import total\n\n\ndef receipt(prices):\n    return f'{total(prices, 10)} due'\n"
    files = {
        "environment/workspace/pocket/receipt.py": receipt,
        "environment/workspace/pocket/other.py": "def other():\n    return 1\n",
        "tests/tree/tests/test_totals.py": "from pocket.other import other\nfrom pocket.receipt import receipt\n\n\n"
        "def test_receipt():\n    assert other() == 1\n    assert receipt([100]) == '90 due'\n",
    }
    for name, text in files.items():
        (task.folder / name).write_text(text)
    material = await gather_material(task, place, ORACLE)
    changed, through = material.sources
    assert (changed.path, changed.functions, changed.entries) == (SOURCE, ("total",), ())
    assert (through.path, through.functions, through.entries) == ("pocket/receipt.py", (), ("receipt",))
    assert through.table == {"receipt": {"(([100],), [])": "tuple(['returns', '90 due'])"}}


async def test_a_solution_under_which_no_test_passes_is_refused(place: VerdictPlace, tmp_path: Path) -> None:
    task = write_task(tmp_path)
    broken = dataclasses.replace(ORACLE[0], content=b"raise RuntimeError('half written')\n")
    with pytest.raises(TaskError, match="no test passes with the solution of the task"):
        await gather_material(task, place, (broken,))
