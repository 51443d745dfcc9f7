"""Kinds of changes by their words, shape and tests; ratios of time; which tests that hold are judged."""

from __future__ import annotations

import datetime as dt
import math

import pytest

from tests.plain_python import PlainPython
from trunkline.tasks.factory import draft as drafts
from trunkline.tasks.factory.candidate import Candidate, SourceText
from trunkline.tasks.factory.change import Change
from trunkline.tasks.factory.language import Results
from trunkline.tasks.factory.nearby_tests import MOST_FILES, MOST_TESTS, choose_files, nearest_first, slow_functions
from trunkline.tasks.factory.route import kind_of, speed_of, why_nothing_turns
from trunkline.types import FileChange

SOLUTION = Change((FileChange("shop.py", "file", 0o644, b"A = 1\n"),), ())
TURNED = drafts.Tested(("tests/test_shop.py::test_a", "tests/test_shop.py::test_b"), ())
NEW = drafts.Tested(TURNED.fail_to_pass, (), new_tests=TURNED.fail_to_pass)


def candidate(title: str) -> Candidate:
    texts = (SourceText("changelog", "CHANGES.md", "- Fix"), SourceText("commit", title, ""))
    return Candidate("shop-1", "shop", "1", "2", dt.datetime(2021, 3, 1, tzinfo=dt.UTC), texts)


@pytest.mark.parametrize(
    ("title", "tested", "kind"),
    [
        ("Fix totals", TURNED, "bug"),
        ("Raise for negative prices", TURNED, "bug"),
        ("Totals", TURNED, "bug"),
        ("fix: add missing prefix", TURNED, "bug"),
        ("Add baskets", TURNED, "feature"),
        ("feat(shop): baskets", TURNED, "feature"),
        ("Baskets", NEW, "feature"),
        ("Fix baskets", NEW, "bug"),
        ("Make totals faster", TURNED, "performance"),
        ("perf: totals", TURNED, "performance"),
        ("Refactor totals", TURNED, "refactor"),
        ("Fix totals after renaming", TURNED, "bug"),
    ],
)
def test_kinds_by_title_and_tests(title, tested, kind):
    assert kind_of(candidate(title), SOLUTION, tested, PlainPython()) == kind


def test_a_change_of_no_source_is_about_tests():
    change = Change((FileChange("setup.cfg", "file", 0o644, b""),), ())
    assert kind_of(candidate("Fix"), change, TURNED, PlainPython()) == "tests"


def test_a_change_that_is_not_faster_is_no_performance_task():
    assert kind_of(candidate("Make totals faster"), SOLUTION, TURNED, PlainPython(), is_faster=False) == "bug"


@pytest.mark.parametrize(
    ("title", "cause"),
    [
        ("Speed up totals", "speed cannot be judged"),
        ("Refactor totals", "a refactoring, and no test turns"),
        ("Totals", "no test turns"),
    ],
)
def test_why_nothing_turns(title, cause):
    assert why_nothing_turns(candidate(title), SOLUTION, PlainPython()) == cause


def test_a_steady_ratio_is_significant():
    speed = speed_of([math.log(ratio) for ratio in (1.9, 2.0, 2.1, 2.0, 1.95)])
    assert speed.is_significant
    assert speed.low < 1.99 < speed.high
    assert speed.words.startswith("1.99 (1.")


@pytest.mark.parametrize("ratios", [(0.8, 3.0, 1.0, 2.5, 0.9), (1.05, 1.06, 1.05, 1.05, 1.06), (0.5, 0.5, 0.51, 0.5, 0.5)])
def test_an_unsteady_or_small_ratio_is_not(ratios):
    assert not speed_of([math.log(ratio) for ratio in ratios]).is_significant


def test_near_test_files_come_first_and_benchmarks_not_at_all():
    files = ["a/tests/test_a.py", "b/tests/test_b.py", "b/test_c.py", "benchmarks/test_d.py"]
    assert nearest_first(files, ["b/tests/test_x.py"]) == ("b/tests/test_b.py", "b/test_c.py", "a/tests/test_a.py")


def suite(seconds: dict[str, float]) -> Results:
    return Results(dict.fromkeys(seconds, "passed"), durations=seconds)


def test_files_that_are_slow_or_large_are_passed_over():
    large = {f"t/test_b.py::test_{number}": 0.0 for number in range(MOST_TESTS + 1)}
    run = suite({"t/test_a.py::test_a": 3.0, **large, "t/test_c.py::test_c": 0.5, "t/test_d.py::test_d": 0.5, "t/test_e.py::test_e": 1.0})
    files = [f"t/test_{letter}.py" for letter in "abcdefg"]
    assert choose_files(files, run) == ("t/test_c.py", "t/test_d.py")


def test_no_more_than_a_few_files_are_chosen():
    files = [f"t/test_{number:02d}.py" for number in range(30)]
    assert choose_files(files, suite({f"{path}::test": 0.0 for path in files})) == tuple(files[:MOST_FILES])


def test_the_slowest_functions_are_dropped_until_the_rest_is_quick():
    seconds = {"a::f[1]": 3.0, "a::f[2]": 3.0, "a::g": 5.0, "a::h": 1.0}
    assert slow_functions(list(seconds), seconds, 6.0) == {"a::f"}
    assert slow_functions(list(seconds), seconds, 12.0) == frozenset()
