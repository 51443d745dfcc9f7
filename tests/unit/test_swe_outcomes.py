"""What of a report is believed, and what counts as what a right solution does."""

from __future__ import annotations

import json

import pytest

from trunkline.tasks.swe.outcomes import TestOutcome, TestRun, biting_probes, mismatches, read_report
from trunkline.tasks.swe.perturb import Probe
from trunkline.tasks.swe.sheets import Expected, Sheet
from trunkline.types import CommandResult, SealedResult


def phase(name: str, when: str, outcome: str = "passed", error: str = "", *, is_assertion: bool = False) -> dict:
    return {"id": name, "when": when, "outcome": outcome, "error": error, "is_assertion": is_assertion, "seconds": 0.5}


def whole(name: str, outcome: str = "passed", error: str = "", *, is_assertion: bool = False) -> list[dict]:
    return [phase(name, "setup"), phase(name, "call", outcome, error, is_assertion=is_assertion), phase(name, "teardown")]


def sealed(lines: list, *, status: int = 0, exit_status: int | None = None, tail: bytes = b"", end: bool = True, **options) -> SealedResult:
    told = [*lines, {"status": status, "num_lines": len(lines)}] if end else lines
    report = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in told) + tail
    command = CommandResult(status if exit_status is None else exit_status, b"", b"last words\n", 0, 0, False, 1.0)
    return SealedResult(command, report, **{"is_report_cut": False, **options})


A, B = "test_x.py::test_a", "test_x.py::TestB::test_b[1-2]"


def test_a_whole_report_is_believed():
    run = read_report(sealed([*whole(A), *whole(B, "failed", "AssertionError", is_assertion=True)], status=1))
    assert run.complaint == ""
    assert run.outcomes == {A: TestOutcome("passed", "", False, 1.5), B: TestOutcome("failed", "AssertionError", True, 1.5)}
    assert run.passed == {A}


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        ([phase(A, "setup", "skipped", "Skipped"), phase(A, "teardown")], "skipped"),
        ([phase(A, "setup", "xfailed"), phase(A, "teardown")], "xfailed"),
        (whole(A, "skipped", "Skipped"), "skipped"),
        (whole(A, "xfailed"), "xfailed"),
        (whole(A, "xpassed"), "xpassed"),
        ([phase(A, "setup", "failed", "KeyError"), phase(A, "teardown")], "error"),
        ([phase(A, "setup"), phase(A, "call"), phase(A, "teardown", "failed", "AssertionError", is_assertion=True)], "error"),
        ([phase(A, "setup"), phase(A, "call", "failed", "AssertionError"), phase(A, "teardown", "failed", "OSError")], "error"),
    ],
)
def test_only_a_test_that_passed_in_all_its_phases_has_passed(lines, outcome):
    run = read_report(sealed(lines, status=int(outcome == "error")))
    assert (run.complaint, run.outcomes[A].outcome, run.outcomes[A].is_assertion) == ("", outcome, False)


LINE = phase(A, "setup")


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (sealed([], end=False), "reported nothing: last words"),
        (sealed(whole(A), end=False, status=0), "before its report did"),
        (sealed(whole(A), tail=b"x"), "in the middle"),
        (sealed(whole(A), tail=json.dumps(LINE).encode() + b"\n"), "goes on after its end"),
        (sealed(whole(A), is_report_cut=True), "cut"),
        (sealed([*whole(A), *whole(A)]), "twice"),
        (sealed([b"not json\n", *whole(A)]), "no JSON"),
        (sealed([b"\xff\n", *whole(A)]), "no JSON"),
        (sealed([b"[1]\n", *whole(A)]), "no object"),
        (sealed([b"[" * 100_000 + b"\n", *whole(A)]), "no JSON"),
        (sealed([json.dumps(LINE).replace("0.5", "NaN").encode() + b"\n"]), "no JSON"),
        (sealed([json.dumps(LINE).replace("0.5", "1e999").encode() + b"\n"]), "took inf"),
        (sealed([json.dumps(LINE).replace('"when"', '"when": "call", "when"').encode() + b"\n"]), "no JSON"),
        (sealed([LINE | {"more": 1}]), "fields"),
        (sealed([{name: LINE[name] for name in LINE if name != "error"}]), "fields"),
        (sealed([LINE | {"seconds": True}]), "bool as seconds"),
        (sealed([LINE | {"seconds": -1.0}]), "took -1.0"),
        (sealed([LINE | {"id": 3}]), "int as id"),
        (sealed([LINE | {"id": "nothing"}]), "says of"),
        (sealed([LINE | {"outcome": "fine"}]), "says of"),
        (sealed([LINE | {"when": "collect"}]), "says of"),
        (sealed([LINE | {"error": "Error\nx"}]), "says of"),
        (sealed([phase(A, "setup"), phase(A, "teardown")]), "has no call"),
        (sealed([phase(A, "setup", "failed"), phase(A, "call"), phase(A, "teardown")], status=1), "has a call after"),
        (sealed([phase(A, "setup"), phase(A, "call")]), "is setup, call, not"),
        (sealed([phase(A, "call"), phase(A, "teardown")]), "is call, teardown, not"),
        (sealed([phase(A, "call"), phase(A, "setup"), phase(A, "teardown")]), "is call, setup, teardown, not"),
        (sealed(whole(A), status=0, exit_status=1), "ended with status 1, its report says 0"),
        (sealed(whole(A), status=1), "no test failed"),
        (sealed(whole(A, "failed"), status=0), "some test failed"),
        (sealed(whole(A), status=2), "interrupted"),
        (sealed(whole(A), status=3), "internal error"),
        (sealed([], status=5), "no tests"),
        (sealed(whole(A), status=-9), "unknown"),
        (sealed([{"collect": "test_x.py", "outcome": "passed", "error": ""}]), "says of a file"),
        (sealed([*whole(A), {"status": 0, "num_lines": 2}], end=False), "3 lines before its end, which says 2"),
        (sealed([*whole(A), {"status": True, "num_lines": 3}], end=False), "bool as status"),
    ],
)
def test_what_is_wrong_with_a_report_is_a_complaint(result, words):
    run = read_report(result)
    assert words in run.complaint
    assert mismatches(Sheet({}, (), {}), [], run) == [run.complaint]


def test_a_file_that_cannot_be_collected_is_a_fault_and_no_complaint():
    fault = {"collect": "test_y.py", "outcome": "failed", "error": "ImportError: no\x1b[31m"}
    run = read_report(sealed([fault, *whole(A)], status=1))
    assert (run.complaint, dict(run.faults), run.passed) == ("", {"test_y.py": "ImportError: no[31m"}, {A})
    sheet = Sheet({}, (), {"test_x.py::test_a": Expected("t.py::test_a", "passed")}, origins={"test_y.py": "old.py"})
    assert mismatches(sheet, ["t.py::test_a"], run) == ["old.py cannot be collected: ImportError: no[31m"]
    skipped = read_report(sealed([{"collect": "test_y.py", "outcome": "skipped", "error": ""}, *whole(A)]))
    assert (skipped.complaint, dict(skipped.faults)) == ("", {})


def run_of(**outcomes: str | tuple[str, str, bool]) -> TestRun:
    """name=outcome, or (outcome, error, is_assertion), of functions of s.py; '__' before parameters."""
    found = {}
    for name, told in outcomes.items():
        function, _, parameter = name.partition("__")
        test = f"s.py::{function}" + (f"[{parameter}]" if parameter else "")
        found[test] = TestOutcome(told) if isinstance(told, str) else TestOutcome(*told)
    return TestRun(found, "", sealed([]))


def sheet_of(**expected: Expected) -> Sheet:
    return Sheet({}, ("s.py",), {f"s.py::{name}": one for name, one in expected.items()}, frozenset({"s.py::loose", "s.py::TestOpen"}))


PROBE = Probe(file="t.py", qualname="test_it", site=0, kind="constant", replacement="2", is_expected=True, fails=("[a]",))
TRUE, CHANGED = Expected("t.py::test_it", "passed"), Expected("t.py::test_it", "failed", fails=("[a]",), probe=PROBE)
JUDGED = ("t.py::test_it[a]", "t.py::test_it[b]")
ASSERTION = ("failed", "AssertionError", True)


def test_a_run_as_of_a_right_solution_has_no_mismatch():
    run = run_of(x__a="passed", x__b="passed", x__flaky="failed", y__a=ASSERTION, y__b="passed", loose="failed", can=ASSERTION)
    sheet = sheet_of(x=TRUE, y=CHANGED, can=Expected("a canary", "failed", is_canary=True))
    assert mismatches(sheet, JUDGED, run) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"x__a": "failed"}, "t.py::test_it[a] failed"),
        ({"x__a": ("failed", "KeyError", False)}, "t.py::test_it[a] failed (KeyError)"),
        ({"x__a": "skipped"}, "t.py::test_it[a] is skipped"),
        ({"x__a": "xfailed"}, "t.py::test_it[a] xfailed"),
        ({"x__a": "xpassed"}, "t.py::test_it[a] xpassed"),
        ({"x__a": "error"}, "t.py::test_it[a] has an error beside its body"),
        ({"x__b": None}, "t.py::test_it[b] is missing"),
        ({"y__a": "passed"}, "a changed copy, which a right solution fails, passed"),
        ({"y__a": ("failed", "KeyError", False)}, "a changed copy, which a right solution fails, failed (KeyError)"),
        ({"y__a": ("error", "AssertionError", False)}, "has an error beside its body"),
        ({"y__a": "skipped"}, "is skipped"),
        ({"y__a": None}, "is missing"),
        ({"can": "passed"}, "a canary that must have failed is passed"),
        ({"can": None}, "a canary that must have failed is missing"),
        ({"other": "passed"}, "no test of this sheet"),
    ],
)
def test_what_a_right_solution_does_not_do_is_named(changed, words):
    outcomes = {"x__a": "passed", "x__b": "passed", "y__a": ASSERTION, "can": ASSERTION} | changed
    run = run_of(**{name: told for name, told in outcomes.items() if told is not None})
    (found,) = mismatches(sheet_of(x=TRUE, y=CHANGED, can=Expected("a canary", "failed", is_canary=True)), JUDGED, run)
    assert words in found


def test_a_changed_input_may_make_a_right_solution_raise_what_it_likes():
    for update in ({"is_expected": False}, {"kind": "raises", "is_expected": False}):
        changed = Expected("t.py::test_it", "failed", probe=PROBE.model_copy(update=update))
        assert mismatches(sheet_of(y=changed), [], run_of(y=("failed", "KeyError", False))) == []
        assert mismatches(sheet_of(y=changed), [], run_of(y="passed")) != []
        assert mismatches(sheet_of(y=changed), [], run_of()) != []


def test_of_an_inheriting_class_tests_that_nobody_judges_may_be_reported():
    run = run_of(TestOpen="passed")
    assert mismatches(sheet_of(x=TRUE), [], TestRun({"s.py::TestOpen::test_more": TestOutcome("failed")}, "", run.result)) == []


def test_probes_bite_that_fail_by_assertion_or_let_an_unexpected_exception_through():
    probes = {
        "a": PROBE,
        "b": PROBE,
        "c": PROBE.model_copy(update={"kind": "raises", "is_expected": False}),
        "d": PROBE,
        "e": PROBE,
        "f": PROBE.model_copy(update={"site": 5}),
    }
    sheet = sheet_of(**{name: Expected("t.py::test_it", "failed", probe=probe) for name, probe in probes.items()})
    run = run_of(
        a="passed",
        b=("failed", "KeyError", False),
        c=("failed", "KeyError", False),
        d=("error", "AssertionError", False),
        f__one=ASSERTION,
        f__two="passed",
    )
    assert [(probe.kind, probe.site, probe.fails) for probe in biting_probes(sheet, run)] == [
        ("raises", 0, ("",)),
        ("constant", 5, ("[one]",)),
    ]
