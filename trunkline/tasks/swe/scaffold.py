"""A first task to start from: a directory that certifies as it is. Owns its text; checks nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from trunkline.errors import TaskError

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

_FILES: Mapping[str, str] = {
    "instruction.md": """\
`middle.median` is wrong for lists of even length: `median([1, 2, 3, 4])` returns `3`, and should return `2.5`, the mean of the two
numbers in the middle. For lists of odd length it is right. An empty list raises `ValueError`, and must go on doing so.
""",
    "task.toml": """\
schema_version = "1.4"

[task]
name = "local/{name}"
description = "Median of an even number of values"

[metadata.trunkline]
workspace = "workspace"     # the folder in environment/ that the agent starts with
kind = "bug"

[environment]
network_mode = "no-network"
""",
    "environment/Dockerfile": """\
FROM python:3.11-slim
RUN pip install --no-cache-dir pytest==9.2.0
COPY workspace /workspace
WORKDIR /workspace
""",
    "environment/workspace/middle.py": '''\
"""The middle of some numbers."""


def median(numbers):
    """The value in the middle of the sorted numbers; of an even number of them, the mean of the two in the middle."""
    if not numbers:
        raise ValueError("the median of nothing")
    return sorted(numbers)[len(numbers) // 2]
''',
    "environment/workspace/tests/test_middle.py": """\
import pytest
from middle import median


def test_the_middle_of_three():
    assert median([3, 1, 2]) == 2


def test_nothing_has_no_median():
    with pytest.raises(ValueError):
        median([])
""",
    "solution/solve.sh": """\
#!/bin/sh
# Any script that solves the task in /workspace. This one lays the fixed files over it.
cp -r /solution/files/. /workspace/
""",
    "solution/files/middle.py": '''\
"""The middle of some numbers."""


def median(numbers):
    """The value in the middle of the sorted numbers; of an even number of them, the mean of the two in the middle."""
    if not numbers:
        raise ValueError("the median of nothing")
    ordered = sorted(numbers)
    upper = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[upper]
    return (ordered[upper - 1] + ordered[upper]) / 2
''',
    "tests/tree/tests/test_even.py": """\
from middle import median


def test_the_middle_of_four():
    assert median([4, 1, 3, 2]) == 2.5


def test_two_that_are_far_apart():
    assert median([10, -6]) == 2
    assert median([0, 7]) == 3.5


def test_six_with_equal_ones():
    assert median([5, 5, 1, 9, 5, 2]) == 5
""",
    "tests/heldout.py": '''\
"""Held-out inputs: drawn anew for each verdict, run on the reference solution and on the work, and compared."""


def calls(rng):
    """Plain data, one item a call."""
    for _ in range(40):
        yield [rng.randint(-99, 99) for _ in range(rng.randint(0, 9))]


def observe(call):
    """What the code does with it, as plain data; an exception counts by its type."""
    from middle import median

    return median(call)
''',
    "tests/test.sh": """\
#!/bin/sh
# What other Harbor runners use; Trunkline judges by the test files themselves.
cp -r /tests/tree/. /workspace/
cd /workspace && python -m pytest -q && reward=1 || reward=0
mkdir -p /logs/verifier && echo "$reward" > /logs/verifier/reward.txt
""",
}


def write_scaffold(folder: Path) -> None:
    """A small, complete task in a new folder. Raises TaskError if there is something already, or its name is no task's."""
    if not _NAME.fullmatch(folder.name):
        raise TaskError(f"a task's folder is named by small letters, digits and single hyphens, got {folder.name!r}")
    if folder.exists():
        raise TaskError(f"{folder} is there already; give a new folder")
    for path, text in _FILES.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text.replace("{name}", folder.name), encoding="utf-8")
        if place.suffix == ".sh":
            place.chmod(0o755)
