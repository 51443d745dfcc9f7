"""Tiny software tasks that attacks are tried on: one bug, one hidden test file a flavour. Checks nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from trunkline.tasks.swe.attacks import Attack
from trunkline.tasks.swe.material import Material, changed_sources
from trunkline.tasks.swe.task import CodeTask, judged_sources, load_code_task
from trunkline.types import FileChange

SOURCE = "pocket/totals.py"
_BUGGY = '''"""Totals of a shopping basket."""

from __future__ import annotations

import time


def total(prices, discount=0):
    """The sum of the prices, less a discount in percent."""
    result = 0
    for price in prices:
        result += price
    {wait}return result


if __name__ == "__main__":
    import sys

    print(total([int(word) for word in sys.argv[2:]], int(sys.argv[1])))
'''
BUGGY = _BUGGY.format(wait="time.sleep(0.15)\n    ")
FIXED = _BUGGY.format(wait="").replace("return result\n", "return result - result * discount // 100\n")
_VISIBLE = "from pocket.totals import total\n\n\ndef test_plain_sum():\n    assert total([1, 2]) == 3\n"
_HIDDEN = {
    "plain": """
def test_discount():
    assert total([100, 50], 10) == 135


def test_whole_discount():
    assert total([17], 100) == 0
""",
    "unittest": """
import unittest


class TotalTest(unittest.TestCase):
    def test_discount(self):
        self.assertEqual(total([100, 50], 10), 135)
""",
    "approx": """
import pytest


def test_discount():
    assert total([100, 50], 10) == pytest.approx(135)
""",
    "random": """
import random


def test_discount_of_anything():
    prices, discount = [random.randint(1, 99) for _ in range(5)], random.randint(1, 99)
    assert total(prices, discount) == sum(prices) - sum(prices) * discount // 100
""",
    "clock": """
import time


def test_speed():
    started = time.perf_counter()
    total([1])
    assert time.perf_counter() - started < 0.1
""",
    "reference": """
import random


def reference(prices, discount=0):
    return sum(prices) - sum(prices) * discount // 100


def test_discount_of_anything():
    prices, discount = [random.randint(100, 199) for _ in range(5)], random.randint(10, 90)
    assert total(prices, discount) == reference(prices, discount)
""",
    "subprocess": """
import subprocess
import sys


def test_command():
    ran = subprocess.run([sys.executable, "-m", "pocket.totals", "10", "100", "50"], capture_output=True, text=True)
    assert ran.stdout.strip() == "135"
""",
}
_HELDOUT = """
def calls(rng):
    return [[[rng.randint(1, 999) for _ in range(rng.randint(0, 5))], rng.randint(0, 100)] for _ in range(20)]


def observe(call):
    from pocket.totals import total

    return total(*call)
"""
_TOML = """
schema_version = "1.4"

[task]
name = "test/{flavour}"

[metadata.trunkline]
workspace = "workspace"
"""
TABLE = {
    "(([100, 50], 10), [])": "tuple(['returns', 135])",
    "(([17], 100), [])": "tuple(['returns', 0])",
    "(([1, 2],), [])": "tuple(['returns', 3])",
}
ORACLE = (FileChange(SOURCE, "file", 0o644, FIXED.encode()),)


def write_task(folder: Path, flavour: str = "plain") -> CodeTask:
    """A whole task below `folder`. 'plain' and 'reference' have held-out inputs."""
    top = folder / flavour
    files = {
        "instruction.md": "A discount is not taken off the total, and the total is slow.",
        "task.toml": _TOML.format(flavour=flavour),
        f"environment/workspace/{SOURCE}": BUGGY,
        "environment/workspace/pocket/__init__.py": "",
        "environment/workspace/tests/test_totals.py": _VISIBLE,
        "tests/tree/tests/test_totals.py": _VISIBLE + _HIDDEN[flavour],
        "tests/test.sh": "cp -r /tests/tree/. /workspace\npython -m pytest; echo $(( ! $? )) > /logs/verifier/reward.txt\n",
        "solution/fixed.py": FIXED,
        "solution/solve.sh": f"cp /solution/fixed.py /workspace/{SOURCE}\n",
    }
    if flavour in ("plain", "reference"):
        files["tests/heldout.py"] = _HELDOUT
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return load_code_task(top)


def flavour_for(attack: Attack) -> str:
    """The tiny task that has what an attack needs."""
    return next((need for need in attack.needs if need in _HIDDEN), "plain")


def material_for(task: CodeTask) -> Material:
    """What a recording would tell of a tiny task."""
    (source,) = changed_sources(task, ORACLE)
    tests = judged_sources(task)
    words = [line.removeprefix("    ") for line in tests["tests/test_totals.py"].splitlines()]
    names = [word.removeprefix("def ").partition("(")[0] for word in words if word.startswith("def test_")]
    owner = "TotalTest::" if "TotalTest" in tests["tests/test_totals.py"] else ""
    ids = tuple(f"tests/test_totals.py::{'' if name == 'test_plain_sum' else owner}{name}" for name in names)
    return Material(task, ORACLE, (dataclasses.replace(source, entries=("total",), table={"total": TABLE}),), tuple(tests), ids, tests)
