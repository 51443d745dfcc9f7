"""Other words for a function do what it did, and wrong versions of a change are neither it nor what was there before."""

from __future__ import annotations

import ast
import random
from typing import Any

import pytest

from trunkline.tasks.factory.variants.equivalents import find_equivalents
from trunkline.tasks.factory.variants.wrong_versions import wrong_versions

MIXED = '''
def walk(items, start=0, stop=None):
    """Adds up."""
    total, seen = start, []
    count = 0
    for item in items[:5]:
        if (item or 0) not in seen and 0 <= count < 4:
            seen.append(item)
            total += item  # each once
            count += 1
        elif item == stop:
            break
    for place in range(count):
        total = total + place if place is not None else (0 if stop else total)
    return total, seen, {}, f"{total} {count}"


def untouched(a):
    return a < 1
'''
CALLS = [([], 0, None), ([1, 2, 2, 3], 1, None), ([5, 5, 5, 1, 2, 9], -1, 5), ([0, 7], 3, 0), ([4, 4, 4, 4, 4, 4], 0, 4)]


def run(source: str) -> list[Any]:
    names: dict[str, Any] = {}
    exec(compile(source, "a.py", "exec"), names)
    return [names["walk"](*call) for call in CALLS]


def test_equivalents_of_many_kinds_do_what_the_function_did() -> None:
    found = find_equivalents(MIXED, path="a.py", functions=("walk",))
    assert {one.operator for one in found} >= {
        "turned",
        "negated",
        "split",
        "renamed",
        "written out",
        "slice",
        "empty",
        "range",
        "branches",
    }
    expected = run(MIXED)
    for one in found:
        assert run(one.source) == expected, (one.operator, one.line)
        assert one.function == "walk" and "untouched(a):\n    return a < 1" in one.source


def test_each_is_another_small_change_of_the_text() -> None:
    found = find_equivalents(MIXED, path="a.py", functions=("walk",))
    assert len({one.source for one in found}) == len(found)
    assert all("# each once" in one.source and '"""Adds up."""' in one.source for one in found)


@pytest.mark.parametrize(
    "text",
    [
        "def f(a):\n    b = a\n    return eval('b')\n",
        "def f(a):\n    b = a\n    return [b for b in a], f'{b}'\n",
        "def f(x):\n    x += 1\n    return x\n",
        "def broken(:\n",
    ],
)
def test_what_could_be_noticed_is_left_alone(text: str) -> None:
    assert not [one for one in find_equivalents(text, path="a.py", functions=("f",)) if one.operator != "named result"]


def test_wrong_versions_are_in_what_the_change_rewrites_new_lines_first() -> None:
    before = "def f(a):\n    if a < 3:\n        return a + 1\n    return 2 * a\n\n\ndef g(a):\n    return a + 1\n"
    after = before.replace("a < 3", "a <= 3")
    found = wrong_versions({"a.py": (before, after)}, random.Random(0))
    assert found and found[0].line == 2 and {one.function for one in found} == {"f"}
    assert all(ast.dump(ast.parse(one.source)) not in (ast.dump(ast.parse(before)), ast.dump(ast.parse(after))) for one in found)
