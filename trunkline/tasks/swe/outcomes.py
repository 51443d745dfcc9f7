"""What a run of tests says, read with suspicion, and whether it is what a right solution does. Owns no run and believes no line by itself.

The report is written by programs/pytest_sheet.py inside a process that also runs the code under test. What can be forged there is
weighed by the sheet; here every line must be well formed, every test must be whole, and the ends must fit.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trunkline.tasks.swe.perturb import Probe
from trunkline.tasks.swe.sheets import Expected, Sheet, split_test
from trunkline.types import SealedResult

Outcome = Literal["passed", "failed", "error", "skipped", "xfailed", "xpassed"]

_PHASES = ("setup", "call", "teardown")
_TEST_FIELDS = {"id": str, "when": str, "outcome": str, "error": str, "is_assertion": bool, "seconds": float}
_FAULT_FIELDS = {"collect": str, "outcome": str, "error": str}
_SEEN_FIELDS = {"seen": str, "place": int}
_END_FIELDS = {"status": int, "num_lines": int}
_REPORTED = frozenset({"passed", "failed", "skipped", "xfailed", "xpassed"})
_NAME = re.compile(r"\w{0,100}")
_MAX_WORDS = 200
_MOST_SEEN = 400
"""Lines of one blind test; a loop may see more."""


@dataclass(frozen=True)
class TestOutcome:
    """How one test ended."""

    __test__ = False

    outcome: Outcome
    """failed: its body did; error: what came before or after it did."""
    error: str = ""
    """Type of the exception that ended it; '' if none did."""
    is_assertion: bool = False
    """It failed as an assert fails."""
    seconds: float = 0.0
    """Wall time with all that belongs to it."""


@dataclass(frozen=True)
class TestRun:
    """How all tests of a run ended."""

    __test__ = False

    outcomes: Mapping[str, TestOutcome]
    """By name with parameters; what could be read, if there is a complaint."""
    complaint: str
    """Why it cannot be believed, in words; '' if it may be."""
    result: SealedResult
    """The process."""
    faults: Mapping[str, str] = field(default_factory=dict)
    """Files that could not be collected, and why."""
    seen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What blind tests saw, by name: '[place, value]' as JSON, in order."""

    @property
    def passed(self) -> frozenset[str]:
        """The tests that passed."""
        return frozenset(name for name, outcome in self.outcomes.items() if outcome.outcome == "passed")


class _Unbelievable(Exception):
    """A complaint."""


@dataclass
class _Report:
    phases: dict[str, dict[str, Mapping[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    faults: dict[str, str] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    seen: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    status: int | None = None


def read_report(result: SealedResult) -> TestRun:
    """Reads the report of a run that came to its end. Whatever is wrong with it is the run's complaint."""
    report, outcomes, complaint = _Report(), {}, ""
    try:
        _read_lines(result, report)
        outcomes = {name: _whole(name, phases) for name, phases in report.phases.items()}
        _check_status(result, report, outcomes)
    except _Unbelievable as error:
        complaint = str(error)
    return TestRun(outcomes, complaint, result, report.faults, {name: tuple(lines) for name, lines in report.seen.items()})


def mismatches(sheet: Sheet, judged: Collection[str], run: TestRun) -> list[str]:
    """Where the run differs from what a right solution does on this sheet, in words without names of copies; [] if it does not.

    Args:
        sheet: What was run.
        judged: Tests that must pass, by their original names with parameters.
        run: What was reported.
    """
    if run.complaint:
        return [run.complaint]
    found = [f"{sheet.origins.get(file, 'a file')} cannot be collected: {words}" for file, words in run.faults.items()]
    by_function: dict[str, dict[str, TestOutcome]] = defaultdict(dict)
    for name, outcome in run.outcomes.items():
        function, ending = split_test(name)
        by_function[function][ending] = outcome
        if not _is_known(function, sheet):
            found.append(f"{name[:_MAX_WORDS]!r} is reported, which is no test of this sheet")
    endings: dict[str, list[str]] = defaultdict(list)
    for name in sorted(judged):
        function, ending = split_test(name)
        endings[function].append(ending)
    for function, expected in sorted(sheet.expected.items(), key=lambda item: item[1].outcome != "passed"):  # true copies say most
        found += _differences(expected, endings[expected.original], by_function.get(function, {}))
    return list(dict.fromkeys(found))


def biting_probes(sheet: Sheet, run: TestRun) -> tuple[Probe, ...]:
    """Of a probe sheet's run under the solution: the probes that made tests fail as they should, with these tests in `fails`."""
    by_function: dict[str, dict[str, TestOutcome]] = defaultdict(dict)
    for name, outcome in run.outcomes.items():
        function, ending = split_test(name)
        by_function[function][ending] = outcome
    found = []
    for function, expected in sheet.expected.items():
        if (probe := expected.probe) is None:
            continue
        # An input that makes the solution raise is none of what the task says; an exception that is not expected propagates.
        fails = [
            ending
            for ending, outcome in by_function.get(function, {}).items()
            if outcome.outcome == "failed" and (outcome.is_assertion or probe.kind == "raises")
        ]
        if fails:
            found.append(probe.model_copy(update={"fails": tuple(fails)}))
    return tuple(found)


def _differences(expected: Expected, judged: list[str], outcomes: Mapping[str, TestOutcome]) -> Iterator[str]:
    if expected.is_canary:
        if not outcomes or any(outcome.outcome != expected.outcome for outcome in outcomes.values()):
            said = ", ".join(sorted({outcome.outcome for outcome in outcomes.values()})) or "missing"
            yield f"a canary that must have {expected.outcome} is {said}: the tests are not run as they are written"
    elif expected.outcome == "passed":
        for ending in judged:
            outcome = outcomes.get(ending)
            if outcome is None or outcome.outcome != "passed":
                yield f"{expected.original}{ending} {_words(outcome)}"
    else:
        for ending in expected.fails or list(outcomes) or [""]:
            outcome = outcomes.get(ending)
            if outcome is None or not _fails_as_meant(expected, outcome):
                yield f"{expected.original}: a changed copy, which a right solution fails, {_words(outcome)}"


def _fails_as_meant(expected: Expected, outcome: TestOutcome) -> bool:
    by_assertion = expected.probe is not None and expected.probe.fails_by_assertion
    return outcome.outcome == "failed" and (outcome.is_assertion or not by_assertion)


def _words(outcome: TestOutcome | None) -> str:
    if outcome is None:
        return "is missing"
    says = {"error": "has an error beside its body", "skipped": "is skipped"}.get(outcome.outcome, outcome.outcome)
    return f"{says} ({outcome.error})" if outcome.error else says


def _is_known(function: str, sheet: Sheet) -> bool:
    parts = function.split("::")
    above = {"::".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return function in sheet.expected or not above.isdisjoint(sheet.unjudged) or not sheet.expected


def _read_lines(result: SealedResult, report: _Report) -> None:
    ended = f"the process ended with status {result.command.status}"
    if result.is_report_cut:
        raise _Unbelievable("the report is too long and was cut")
    if not result.report:
        raise _Unbelievable(f"{ended} and reported nothing{_last_words(result)}")
    if not result.report.endswith(b"\n"):
        raise _Unbelievable(f"{ended} in the middle of its report")
    lines = result.report[:-1].split(b"\n")
    for number, line in enumerate(lines):
        if report.status is not None:
            raise _Unbelievable("the report goes on after its end")
        told = _parse(line)
        if "status" in told:
            _check_fields(told, _END_FIELDS)
            if told["num_lines"] != number:
                raise _Unbelievable(f"the report has {number} lines before its end, which says {told['num_lines']}")
            report.status = told["status"]
        elif "seen" in told:
            _note_seen(told, report)
        elif "collect" in told:
            _note_fault(_check_fields(told, _FAULT_FIELDS), report)
        else:
            _note_phase(_check_fields(told, _TEST_FIELDS), report)
    if report.status is None:
        raise _Unbelievable(f"{ended} before its report did{_last_words(result)}")


def _parse(line: bytes) -> dict[str, Any]:
    try:
        told = json.loads(line.decode(), object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise _Unbelievable(f"a line of the report is no JSON: {line[:80]!r}") from None
    if not isinstance(told, dict):
        raise _Unbelievable(f"a line of the report is no object: {line[:80]!r}")
    return told


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)


def _refuse(constant: str) -> float:
    raise ValueError(f"not JSON: {constant}")


def _check_fields(told: dict[str, Any], fields: Mapping[str, type]) -> dict[str, Any]:
    if told.keys() != fields.keys():
        raise _Unbelievable(f"a line of the report has the fields {sorted(told)[:8]}, not {sorted(fields)}"[:_MAX_WORDS])
    for name, kind in fields.items():
        if type(told[name]) is not kind:
            raise _Unbelievable(f"a line of the report has a {type(told[name]).__name__} as {name}")
    return told


def _note_seen(told: dict[str, Any], report: _Report) -> None:
    value = told.pop("value", None)
    lines = report.seen[_check_fields(told, _SEEN_FIELDS)["seen"]]
    if len(lines) < _MOST_SEEN:
        lines.append(json.dumps([told["place"], value]))


def _note_fault(told: dict[str, Any], report: _Report) -> None:
    if told["outcome"] == "failed":
        report.faults[told["collect"]] = "".join(letter for letter in told["error"] if letter.isprintable())[:_MAX_WORDS]
    elif told["outcome"] != "skipped":
        raise _Unbelievable(f"the report says of a file: {told['outcome'][:20]!r}")


def _note_phase(told: dict[str, Any], report: _Report) -> None:
    name, when, phases = told["id"], told["when"], report.phases[told["id"]]
    if when not in _PHASES or told["outcome"] not in _REPORTED or not _NAME.fullmatch(told["error"]) or "::" not in name:
        raise _Unbelievable(f"the report says of {name[:80]!r}: {when[:20]!r}, {told['outcome'][:20]!r}, {told['error'][:20]!r}")
    if not (math.isfinite(told["seconds"]) and told["seconds"] >= 0):
        raise _Unbelievable(f"the report says that {name[:80]!r} took {told['seconds']} s")
    if when in phases:
        raise _Unbelievable(f"the report says twice how the {when} of {name[:80]!r} ended")
    phases[when] = told


def _whole(name: str, phases: Mapping[str, Mapping[str, Any]]) -> TestOutcome:
    """One test from its phases, which must be all there are, in order."""
    setup, call, teardown = (phases.get(when) for when in _PHASES)
    if setup is None or teardown is None or list(phases) != [when for when in _PHASES if when in phases]:
        raise _Unbelievable(f"the report of {name[:80]!r} is {', '.join(phases)}, not setup, call, teardown")
    if (call is None) == (setup["outcome"] == "passed"):
        raise _Unbelievable(f"the report of {name[:80]!r} has {'no' if call is None else 'a'} call after a setup that {setup['outcome']}")
    seconds = sum(told["seconds"] for told in phases.values())
    decisive = call or setup
    outcome = decisive["outcome"]
    if (call is None and outcome == "failed") or teardown["outcome"] != "passed":
        decisive, outcome = (teardown if teardown["outcome"] != "passed" else setup), "error"
    return TestOutcome(outcome, decisive["error"], outcome == "failed" and decisive["is_assertion"], seconds)


def _check_status(result: SealedResult, report: _Report, outcomes: Mapping[str, TestOutcome]) -> None:
    status, told = result.command.status, report.status
    if status != told:
        raise _Unbelievable(f"the process ended with status {status}, its report says {told}")
    has_failed = bool(report.faults) or any(outcome.outcome in ("failed", "error") for outcome in outcomes.values())
    if status not in (0, 1):
        meanings = {2: "interrupted", 3: "internal error", 4: "usage error or a conftest.py that cannot be loaded", 5: "no tests"}
        raise _Unbelievable(f"pytest ended with status {status} ({meanings.get(status, 'unknown')}){_last_words(result)}")
    if bool(status) != has_failed:
        raise _Unbelievable(f"pytest ended with status {status}, but {'some' if has_failed else 'no'} test failed")


def _last_words(result: SealedResult) -> str:
    lines = (result.command.stderr.strip() or result.command.stdout.strip()).decode(errors="replace").splitlines()
    words = "".join(letter for letter in lines[-1] if letter.isprintable())[:_MAX_WORDS] if lines else ""
    return f": {words}" if words else ""
