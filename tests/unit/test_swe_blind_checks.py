"""What the host makes of what blind tests tell: right answers in other words, answers that hold everything, nonsense; and secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trunkline.tasks.swe.blind_checks import BlindFile, Check, differences, hides_answers
from trunkline.tasks.swe.outcomes import TestOutcome, TestRun
from trunkline.types import CommandResult, SealedResult

TEST = "tests/test_a.py::test_it"
RESULT = SealedResult(CommandResult(0, b"", b"", 0, 0, False, 1.0), b"", is_report_cut=False)
NUMBERS = " ".join(map(str, range(20000)))


def is_right(check: Check, of_solution: Any, told: Any) -> bool:
    run = TestRun({TEST: TestOutcome("passed")}, "", RESULT, {}, {TEST: (json.dumps([0, told]),)})
    files = {"tests/test_a.py": BlindFile("", (check,), frozenset())}
    return not differences(files, {TEST: (json.dumps([0, of_solution]),)}, run)


@pytest.mark.parametrize(
    ("check", "of_solution", "told"),
    [
        (Check("equal"), 42, 42),
        (Check("contains", '"9005"'), "the sum is 9005", "in all: 9005 cents"),
        (Check("contains", "81"), ["list", [81, 83]], ["list", [81, 85]]),
        (Check("contains", '"a"'), ["dict", [["a", 1]]], ["dict", [["a", 2], ["b", 3]]]),
        (Check("raises", "too much"), ["raised", "ValueError", "too much"], ["raised", "ValueError", "9001 is too much"]),
        (Check("warns"), ["warned", [["UserWarning", "old"]]], ["warned", [["ResourceWarning", "open"], ["UserWarning", "aged"]]]),
    ],
)
def test_what_the_test_lets_pass_is_right(check: Check, of_solution: Any, told: Any) -> None:
    assert is_right(check, of_solution, told)


@pytest.mark.parametrize(
    ("check", "of_solution", "told"),
    [
        (Check("equal"), 42, 43),
        (Check("contains", '"9005"'), "the sum is 9005", "the sum is 9006"),
        (Check("contains", '"9005"'), "the sum is 9005", NUMBERS),
        (Check("contains", "81"), ["list", [81, 83]], ["list", list(range(1000))]),
        (Check("raises", "much"), ["raised", "ValueError", "too much"], ["raised", "TypeError", "too much"]),
        (Check("raises", "much 9001"), ["raised", "ValueError", "too much 9001"], ["raised", "ValueError", NUMBERS]),
        (Check("raises"), ["raised", "ValueError", ""], ["warned", [["TypeError", ""], ["ValueError", ""]]]),
        (Check("warns"), ["warned", [["UserWarning", ""]]], ["warned", [["UserWarning", ""], ["A", ""], ["B", ""]]]),
        (Check("warns"), ["warned", [["UserWarning", "old"]]], ["raised", "UserWarning", "old"]),
    ],
)
def test_other_answers_and_those_that_hold_everything_are_not(check: Check, of_solution: Any, told: Any) -> None:
    assert not is_right(check, of_solution, told)


@pytest.mark.parametrize("told", [["dict", [1]], ["dict", 5], ["list", None], ["set"], [], {}, None, 1e308, ["raised"], ["warned", [[]]]])
@pytest.mark.parametrize("kind", ["contains", "raises", "warns"])
def test_what_has_no_sense_is_wrong_and_breaks_nothing(kind: Any, told: Any) -> None:
    of_solution = {"contains": ["list", [81]], "raises": ["raised", "ValueError", ""], "warns": ["warned", [["UserWarning", ""]]]}
    assert not is_right(Check(kind, "81"), of_solution[kind], told)


@pytest.mark.parametrize(
    ("check", "of_solution", "is_hidden"),
    [
        (Check("equal"), 4217, True),
        (Check("equal", is_open=True), 4217, False),
        (Check("equal"), 42, False),
        (Check("equal"), ["list", [0, 42]], False),
        (Check("equal"), ["list", [81, 42, 5]], True),
        (Check("equal"), ["list", [0, True]], False),
        (Check("equal"), ["list", [["other", "Token"], ["other", "Token"]]], False),
        (Check("equal"), ["large", "list", 5000], False),
        (Check("equal"), ["dict", [["total", 1]]], True),
        (Check("contains", '"red"'), "a red one", False),
        (Check("contains", "81"), ["list", [81, 83]], False),
        (Check("contains", '"scarlet"'), "a scarlet one", True),
        (Check("contains", '"Usage: x"'), "Usage: x y", False),
        (Check("raises"), ["raised", "OverflowError", "too much"], False),
        (Check("raises", "too much: [0-9]+"), ["raised", "OverflowError", "too much: 9"], True),
        (Check("raises", "[0-9]+"), ["raised", "OverflowError", "9"], False),
        (Check("raises", "Usage"), ["raised", "OverflowError", "Usage: x"], False),
    ],
)
def test_an_answer_hides_something_if_nobody_would_come_upon_it(check: Check, of_solution: Any, is_hidden: bool) -> None:
    file = BlindFile("", (check,), frozenset({'"Usage: x"', "7"}))
    assert hides_answers(file, [json.dumps([0, of_solution])], []) is is_hidden
