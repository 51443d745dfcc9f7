"""A tiny task that asks for tests: the package of software_task.py, the change that mends it, two wrong ways to do so, its own test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.software_task import BUG, CURE, FILES, SHOP, write_task
from trunkline.tasks.swe.task import CodeTask
from trunkline.types import FileChange

FIXED = SHOP.replace(BUG, CURE)
ORACLE = """\
from shop import total


def test_percent():
    assert total([400, 600], 10) == 900
    assert total([99], 50) == 49


def test_never_below_nothing():
    assert total([100], 150) == 0
"""
TASK = """\
    schema_version = "1.4"
    [task]
    name = "test/coupon-tests"
    [metadata.trunkline]
    workspace = "workspace"
    verifier = "inversion"
    kind = "tests"
    timeout_s = 20
    """
INVERSION: Mapping[str, str] = {
    **{path: text for path, text in FILES.items() if path.startswith("environment/")},
    "instruction.md": "The coupon of `shop.total` is taken as cents, it is a percentage. Write a test that shows it.\n",
    "task.toml": TASK,
    "solution/solve.sh": "cp /solution/test_coupon.py /workspace/tests/test_coupon.py\n",
    "solution/test_coupon.py": ORACLE,
    "tests/test.sh": "echo 0 > /logs/verifier/reward.txt\n",
    "tests/inversion.toml": "deleted = []\n",
    "tests/after/shop/__init__.py": FIXED,
    "tests/wrong/added/shop/__init__.py": FIXED.replace("(100 - coupon)", "(100 + coupon)"),
    "tests/wrong/unbounded/shop/__init__.py": FIXED.replace("max(0, ", "max(-1000, "),
}


def write_inversion(folder: Path, **changed: str) -> CodeTask:
    """The task, with other texts for some files; '' leaves a file out."""
    return write_task(folder, **(dict.fromkeys(FILES, "") | dict(INVERSION) | changed))


def written(text: str, path: str = "tests/test_written.py") -> tuple[FileChange, ...]:
    """What an agent leaves that writes one test file."""
    return (FileChange(path, "file", 0o644, text.encode()),)
