"""What an instruction and a workspace tell of the answers that tests expect."""

from __future__ import annotations

import random
from typing import Any

import pytest

from trunkline.tasks.swe.blind_checks import BlindFile, Check, hides_answers
from trunkline.tasks.swe.perturb import Probe, candidate_probes
from trunkline.tasks.swe.told import Told, shows_true_value, stands_in_workspace

INSTRUCTION = """# Totals of orders

`total` loses the last row of 1250; see the report of 7 days.

```python
assert total([3, -4]) == 42
assert words(b"ab") == 'it\\'s\\nlate'
```

It should say "nothing to add up".
"""


@pytest.mark.parametrize("value", [42, 3, -4, 4.0, 1250, "it's\nlate", b"ab", "nothing to add up", "nothing to add"])
def test_literals_of_code_and_words_and_long_numbers_of_prose_are_told(value: Any) -> None:
    assert Told(INSTRUCTION).tells(value)


@pytest.mark.parametrize("value", [7, 125, 2, 43, "a", "its", "nothing to add up here", b"nothing to add up", True, None, ["list", [42]]])
def test_short_numbers_of_prose_parts_and_what_is_no_leaf_are_not_told(value: Any) -> None:
    assert not Told(INSTRUCTION).tells(value)


@pytest.mark.parametrize("fence", ["```\nx == 81\n```", "```pycon\n>>> x\n81", "write `x = 81` there", "```python\nx = (81\n```"])
def test_code_is_read_however_it_stands_there(fence: str) -> None:
    assert Told(fence).tells(81)


def test_broken_literals_are_passed_over() -> None:
    assert not Told("```\n007 0x 'unended\n1__0\n```").tells(7)


@pytest.mark.parametrize(
    ("pattern", "is_said"), [("nothing to add", True), ("^# Totals", True), ("late$", True), ("too much", False), ("(", False)]
)
def test_patterns_are_looked_for_in_words_and_literals(pattern: str, is_said: bool) -> None:
    assert Told(INSTRUCTION).says(pattern) is is_said


@pytest.mark.parametrize(
    ("check", "seen", "is_hidden"),
    [
        (Check("equal"), '[0, "it\'s\\nlate"]', False),
        (Check("equal"), '[0, ["list", ["nothing to add up", 42]]]', False),
        (Check("equal"), '[0, ["list", ["nothing to add up", "something else"]]]', True),
        (Check("equal"), "[0, 4217]", True),
        (Check("equal"), '[0, ["list", [3, 42, 1250, 43, 44]]]', True),
        (Check("equal"), '[0, ["list", [-4, 3, 42, 1250]]]', True),
        (Check("equal"), '[0, ["list", [-4, 3, 42]]]', False),
        (Check("contains", '"nothing to add up"'), '[0, "x: nothing to add up"]', False),
        (Check("raises", "nothing to .* up"), '[0, ["raised", "ValueError", "nothing to add up"]]', False),
        (Check("raises", "too many rows"), '[0, ["raised", "ValueError", "too many rows"]]', True),
    ],
)
def test_what_the_instruction_tells_hides_nothing(check: Check, seen: str, is_hidden: bool) -> None:
    file = BlindFile("", (check,), frozenset())
    assert hides_answers(file, [seen], [], Told(INSTRUCTION)) is is_hidden
    if check.taken_out != '"nothing to add up"':
        assert hides_answers(file, [seen], [])


TEST = "def test_it():\n    assert total([5, 6]) == 4211\n\n\nclass TestB:\n    def test_it(self):\n        assert total([1]) == 977\n"


def dealt(qualname: str) -> list[Probe]:
    found = candidate_probes(TEST, file="test_a.py", qualname=qualname, rng=random.Random(0))
    return [probe for probe in found if probe.kind == "constant" and probe.is_expected]


@pytest.mark.parametrize(
    ("told", "is_shown"),
    [
        ("`total` gives 4211", True),
        ("`total` gives 977", False),
        ("", False),
    ],
)
def test_copies_hide_nothing_if_the_true_value_of_their_place_is_told(told: str, is_shown: bool) -> None:
    assert shows_true_value(dealt("test_it"), TEST, Told(told)) is is_shown


@pytest.mark.parametrize(
    ("claim", "told", "is_shown"),
    [
        ("assert total([5]) == 6", "```python\nassert total([5]) == 6\n```", True),
        ("assert total([5]) == 6", ">>> in a session: `total([5]) == 6`", True),
        ("assert total([5]) == 6", "```python\nassert total([6]) == 7\n```", False),
        ("assert total([5]) == -6", "```pycon\n>>> assert total([5]) == -6\nthat is so\n```", True),
        ("assert total([5]) == [6, 7]", "it gives `[6, 7]`", True),
        ("assert total([5]) == [6, 7]", "it gives `[6, 8]`, `7`", False),
    ],
)
def test_a_short_true_value_is_told_by_the_code_that_it_stands_in(claim: str, told: str, is_shown: bool) -> None:
    test = f"def test_it():\n    {claim}\n"
    found = candidate_probes(test, file="test_a.py", qualname="test_it", rng=random.Random(0))
    assert shows_true_value([probe for probe in found if probe.is_expected], test, Told(told)) is is_shown


def test_an_assert_of_unittest_is_told_by_an_assert() -> None:
    test = "class TestB:\n    def test_it(self):\n        self.assertEqual(total([1]), 6)\n"
    found = candidate_probes(test, file="test_a.py", qualname="TestB::test_it", rng=random.Random(0))
    assert shows_true_value([probe for probe in found if probe.is_expected], test, Told("`assert total([1]) == 6`"))


def test_what_stands_in_the_workspace_is_told_whole() -> None:
    of_task, of_workspace = {"test_a.py": TEST, "test_b.py": TEST}, {"test_a.py": TEST.replace("4211", "4212")}
    assert stands_in_workspace("test_a.py::TestB::test_it", of_task, of_workspace)
    assert not stands_in_workspace("test_a.py::test_it", of_task, of_workspace)
    assert not stands_in_workspace("test_b.py::test_it", of_task, of_workspace)
    assert not stands_in_workspace("test_a.py::test_other", of_task, of_workspace)
