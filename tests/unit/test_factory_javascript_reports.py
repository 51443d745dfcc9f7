"""Reports of JavaScript runners, read by the program that runs in the sandbox, under Node itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from trunkline.tasks.environments.javascript.environment import PROGRAMS_HERE

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")


def read(runner: str, report: str, files: list[str], cwd: Path) -> dict[str, Any]:
    """What `readReport` makes of it."""
    code = (
        f"import {{ readReport }} from '{PROGRAMS_HERE}/run.mjs';"
        "const [runner, report, files] = JSON.parse(process.argv[1]);"
        "console.log(JSON.stringify(readReport(runner, report, files)));"
    )
    argv = ["node", "--input-type=module", "-e", code, json.dumps([runner, report, files])]
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=True, timeout=60)
    return dict(json.loads(done.stdout))


def lines(*entries: list[Any]) -> str:
    """As our reporters write them."""
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def test_tests_of_one_name_are_told_apart(tmp_path):
    file = f"{tmp_path}/a.test.js"
    report = lines([file, ["g", "x"], "passed", "", 0.5], [file, ["g", "x"], "failed", "", 0.25])

    found = read("node", report, [], tmp_path)

    assert found["outcomes"] == {"a.test.js > g > x": "passed", "a.test.js > g > x #2": "failed"}
    assert found["durations"] == {"a.test.js > g > x": 0.5, "a.test.js > g > x #2": 0.25}


def test_a_file_that_fails_without_tests_is_a_fault_with_its_error(tmp_path):
    report = lines([f"{tmp_path}/a.js", [], "failed", "node:internal\n\nError: Cannot find module 'x'\n    at y\nNode.js v20", 0])

    assert read("node", report, [], tmp_path)["faults"] == {"a.js": "Error: Cannot find module 'x'"}


def test_a_file_that_fails_after_its_tests_is_a_failed_test(tmp_path):
    report = lines([f"{tmp_path}/a.js", ["x"], "passed", "", 0], [f"{tmp_path}/a.js", [], "failed", "", 0])

    assert read("node", report, [], tmp_path)["outcomes"] == {"a.js > x": "passed", "a.js > (the file)": "failed"}


def test_only_files_that_were_asked_for_are_told(tmp_path):
    report = lines([f"{tmp_path}/a.js", ["x"], "passed", "", 0], [f"{tmp_path}/b.js", ["x"], "passed", "", 0])

    assert list(read("mocha", report, ["b.js"], tmp_path)["outcomes"]) == ["b.js > x"]


def test_names_are_one_line(tmp_path):
    assert list(read("mocha", lines([f"{tmp_path}/a.js", ["x\n  y"], "passed", "", 0]), [], tmp_path)["outcomes"]) == ["a.js > x y"]


def test_reports_of_jest_and_vitest_are_read(tmp_path):
    tests = [
        {"ancestorTitles": ["", "g"], "title": "x", "status": "passed", "duration": 20},
        {"ancestorTitles": [], "title": "y", "status": "failed"},
        {"ancestorTitles": [], "title": "z", "status": "pending"},
    ]
    results = [
        {"name": f"{tmp_path}/a.js", "status": "failed", "assertionResults": tests, "message": ""},
        {
            "name": f"{tmp_path}/b.js",
            "status": "failed",
            "assertionResults": [],
            "message": "\u001b[1mCannot find module 'c'\u001b[22m\n  at x",
        },
    ]

    found = read("jest", json.dumps({"testResults": results}), [], tmp_path)

    assert found["outcomes"] == {"a.js > g > x": "passed", "a.js > y": "failed", "a.js > z": "skipped"}
    assert found["faults"] == {"b.js": "Cannot find module 'c'"}
    assert found["durations"]["a.js > g > x"] == 0.02


def test_files_that_run_their_own_tests_are_one_test_each(tmp_path):
    thrown, missing = "AssertionError [ERR_ASSERTION]: 1 == 2", "Error: Cannot find module './x'"
    report = lines(
        [f"{tmp_path}/a.js", [], "passed", "", 0.5],
        [f"{tmp_path}/b.js", [], "failed", thrown, 0],
        [f"{tmp_path}/c.js", [], "failed", missing, 0],
    )

    found = read("files", report, [], tmp_path)

    assert found["outcomes"] == {"a.js > (the file)": "passed", "b.js > (the file)": "failed"}
    assert found["faults"] == {"c.js": missing}
