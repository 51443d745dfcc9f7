"""Runs pytest on the files of a sheet and reports how each test ended. Owns no judgement: what it reports may have been forged in here.

    argv[1]: {"packages": [...], "import_roots": [...], "files": [...], "pytest_args": [...]}
    report:  {"id", "when", "outcome", "error", "is_assertion", "seconds"} a phase of a test, {"collect", "outcome", "error"} a file that
             could not be collected, {"seen", "place", "value"} what a blind test saw (observer.py), and at its end {"status", "num_lines"}

The code under test is imported into this process. So that it takes some skill to lie, what writes the report is bound before any
of it is there; that a lie does not pay is the sheet's business. What is imported from the workspace comes last on the path: it can
stand in neither for a module of Python nor for pytest. So pytest imports test files by their place, and the directories that it
would put first on the path, for what lies beside tests, are put last here.

Runs under every Python from 3.8 and every pytest from 7.2 on.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import sys
import types
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

_ROOT = "/workspace"
_NAME_LETTERS = 100
_FAULT_LETTERS = 200

if TYPE_CHECKING:
    Raised = tuple[str, bool]
    """Name of the exception, and whether it is that of an assert."""


def make_reporter(fd: int) -> tuple[Callable[[dict[str, Any]], None], Callable[[int], None]]:
    """send(line) and finish(status), whatever becomes of the modules that they are made of."""
    write, encode, leave = os.write, json.JSONEncoder(allow_nan=False).encode, os._exit
    num_lines = 0

    def send(line: dict[str, Any]) -> None:
        nonlocal num_lines
        rest = (encode(line) + "\n").encode()
        while rest:
            rest = rest[write(fd, rest) :]
        num_lines += 1

    def finish(status: int) -> None:
        send({"status": status, "num_lines": num_lines})
        leave(status)

    return send, finish


class Reporter:
    """A plugin that hears of everything. Subtests are part of their test: it has passed only if they have."""

    def __init__(self, send: Callable[[dict[str, Any]], None], failed: type[BaseException]) -> None:
        self.send = send
        self.assertions = (AssertionError, failed)
        self.name_of = type.__dict__["__name__"].__get__  # a metaclass may answer anything
        self.raised: dict[tuple[str, str], Raised] = {}
        self.subtests: dict[str, list[tuple[str, Raised]]] = {}
        self.faults: dict[str, str] = {}
        self.running = ""

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Whose turn it is."""
        self.running = nodeid

    def pytest_load_initial_conftests(self, early_config: Any) -> None:
        """What the project puts on the path comes last, too; pytest puts it first."""
        for path in map(str, early_config.getini("pythonpath")):
            while path in sys.path:
                sys.path.remove(path)
            sys.path.append(path)

    def pytest_runtest_makereport(self, item: Any, call: Any) -> Generator[None, Any, Any]:
        """Notes the exception, which the report does not have."""
        report = yield
        self.raised[report.nodeid, report.when] = self.describe(call)
        return report

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Sends what is final of a phase."""
        raised = self.raised.pop((report.nodeid, report.when), ("", False))
        outcome = report.outcome
        if hasattr(report, "wasxfail"):
            outcome = {"skipped": "xfailed", "passed": "xpassed"}.get(outcome, outcome)
        if hasattr(report, "context"):
            self.subtests.setdefault(report.nodeid, []).append((outcome, raised))
            return
        if report.when == "call":
            outcome, raised = with_subtests(outcome, raised, self.subtests.pop(report.nodeid, []))
        line = {"id": report.nodeid, "when": report.when, "outcome": outcome, "error": raised[0], "is_assertion": raised[1]}
        self.send({**line, "seconds": float(max(0.0, report.duration))})

    def pytest_exception_interact(self, call: Any, report: Any) -> None:
        """Notes why a file could not be collected."""
        if report.when == "collect":
            lines = str(report.longrepr).strip().splitlines() or [self.describe(call)[0]]
            self.faults[report.nodeid] = lines[-1][lines[-1].startswith("E") :].strip()

    def pytest_collectreport(self, report: Any) -> None:
        """Sends that."""
        if report.outcome != "passed":
            words = self.faults.pop(report.nodeid, "")[:_FAULT_LETTERS]
            self.send({"collect": report.nodeid, "outcome": report.outcome, "error": words})

    def describe(self, call: Any) -> Raised:
        """The exception that ended a phase; ("", False) if none did."""
        if call.excinfo is None:
            return "", False
        kind = call.excinfo.type
        name = "".join(letter for letter in self.name_of(kind) if letter.isalnum() or letter == "_")
        return name[:_NAME_LETTERS], issubclass(kind, self.assertions)


def with_subtests(outcome: str, raised: Raised, subtests: list[tuple[str, Raised]]) -> tuple[str, Raised]:
    """The outcome of a test with that of its subtests; what it raised itself comes first."""
    if raised[0]:
        return outcome, raised
    failures = [told for ended, told in subtests if ended == "failed"]
    if failures:
        return "failed", (failures[0][0], all(is_assertion for _, is_assertion in failures))
    others = [(ended, told) for ended, told in subtests if ended != "passed"]
    return others[0] if others and outcome == "passed" else (outcome, raised)


def arguments(settings: dict[str, Any]) -> list[str]:
    """Of pytest. Ours come last, so that they win over those of the project and the task: every test runs, nothing is remembered.

    Nobody reads tracebacks and explanations of failed asserts, and copies fail on purpose: they would take most of the time.
    """
    whole = ["-p", "no:cacheprovider", f"--rootdir={_ROOT}", "--import-mode=importlib", "--continue-on-collection-errors", "--maxfail=0"]
    terse = ["--assert=plain", "--tb=line", "--no-header", "--color=no"]
    return [*settings["pytest_args"], *whole, *terse, "--", *settings["files"]]


def beside_tests(files: list[str]) -> list[str]:
    """Directories from which test files, and conftest.py files above them, import what lies beside them."""
    found: dict[str, None] = {}
    for file in files:
        folder, is_own = os.path.dirname(f"{_ROOT}/{file}"), True
        while folder.startswith(_ROOT):
            if is_own or os.path.exists(f"{folder}/conftest.py"):
                found[above_package(folder)] = None
            folder, is_own = os.path.dirname(folder), False
    return list(found)


def above_package(folder: str) -> str:
    """The first directory from here upwards that is no package."""
    while folder != _ROOT and os.path.exists(f"{folder}/__init__.py"):
        folder = os.path.dirname(folder)
    return folder


def observer(reporter: Reporter) -> types.ModuleType:
    """What blind tests import."""
    found = types.ModuleType("trunkline_observer")
    place = os.path.join(os.path.dirname(os.path.abspath(__file__)), "observer.py")
    found.__dict__.update(runpy.run_path(place)["make"](reporter.send, lambda: reporter.running))
    return found


def main() -> None:
    """Reads, runs, reports, and ends at once: threads and exit hooks of the code under test have no say."""
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]  # where this file lies: before 3.11 there was no -P that leaves it out
    settings = json.loads(sys.argv[1])
    fd = int(os.environ.pop("TRUNKLINE_REPORT_FD"))
    os.set_inheritable(fd, False)
    sys.dont_write_bytecode = True
    send, finish = make_reporter(fd)
    sys.path += settings["packages"]
    gc.disable()  # importing pytest makes much and leaves no garbage; to look for some took a seventh of a short run
    import site

    import pytest

    gc.freeze()
    gc.enable()
    site.setquit()  # exit() is no part of Python without site packages, but of what code expects
    pytest.hookimpl(wrapper=True, tryfirst=True)(Reporter.pytest_runtest_makereport)
    pytest.hookimpl(tryfirst=True)(Reporter.pytest_runtest_logreport)
    reporter = Reporter(send, pytest.fail.Exception)
    sys.path += dict.fromkeys([*settings["import_roots"], *beside_tests(settings["files"])])
    os.environ["PYTHONPATH"] = os.pathsep.join(settings["import_roots"])  # of Pythons that tests start
    sys.modules["trunkline_observer"] = observer(reporter)
    sys.argv[:] = ["pytest"]
    status = int(pytest.main(arguments(settings), plugins=[reporter]))
    sys.stdout.flush()
    finish(status)


if __name__ == "__main__":
    main()
