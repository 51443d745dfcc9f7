"""Sources in other words mean what they meant, and say nothing of the version that they are of."""

from __future__ import annotations

import ast
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.software_task import BUG, CURE, SHOP
from trunkline.tasks.swe.inversion.disguise import disguise

MIXED = '''
"""Says what it is of."""
__version__ = "2.1"
LIMIT = 10


def walk(items, start=0, *, deep=False):
    """Of the changed version."""
    total, seen = start, []
    for place, item in enumerate(items):
        if item is not None and item not in seen and not (place == 3 or item == LIMIT):
            seen.append(item)
            total += item
        elif deep:
            total -= 1
        else:
            continue
    sign = "+" if total > 0 else "-"
    squares = [item * item for item in seen if 2 < item]
    while total > 5 and len(seen) > 1:
        total -= seen.pop()
    return total, sign, squares, f"{total=} {sign}"


def counter():
    count = 0

    def step(by=1):
        nonlocal count
        count += by
        return count

    step()
    return step(2) + count


def spelled():
    here = 1
    return sorted(locals())


class Box:
    """A box."""

    size = 3

    def grow(self, by=None):
        """Grows."""
        amount = self.size if by is None else by
        try:
            result = amount / (3 - self.size)
        except ZeroDivisionError as error:
            result = str(error)
        return amount, result


async def later(wait):
    found = await wait
    return found
'''


def run(text: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "a"}
    exec(compile(text, "a.py", "exec"), names)
    return names


@given(seed=st.integers(0, 10**6), items=st.lists(st.none() | st.integers(-3, 12), max_size=8), deep=st.booleans())
def test_what_is_written_otherwise_does_the_same(seed: int, items: list[int | None], deep: bool) -> None:
    was, now = run(MIXED), run(disguise(MIXED, like=MIXED, rng=random.Random(seed)))
    assert now["walk"](items, deep=deep) == was["walk"](items, deep=deep)
    assert now["counter"]() == was["counter"]() == 6
    assert now["spelled"]() == ["here"]
    assert [now["Box"]().grow(by) for by in (None, 2)] == [was["Box"]().grow(by) for by in (None, 2)]
    assert (now["__doc__"], now["walk"].__doc__, now["Box"].grow.__doc__) == ("Says what it is of.", "Of the changed version.", "Grows.")


def test_each_draw_has_other_words_and_other_code() -> None:
    texts = [disguise(MIXED, like=None, rng=random.Random(seed)) for seed in range(8)]
    assert len(set(texts)) == 8
    assert len({run(text)["walk"].__code__.co_code for text in texts}) > 4, "names aside, the code differs, too"


def test_the_same_draw_gives_the_same() -> None:
    assert disguise(MIXED, like=None, rng=random.Random(3)) == disguise(MIXED, like=None, rng=random.Random(3))


def test_comments_and_layout_are_gone() -> None:
    text = disguise("# mended\na = [1,\n   2]  # here\n", like=None, rng=random.Random(0))
    assert text == "a = [1, 2]\n"


def test_docstrings_and_versions_are_those_of_the_changed_source() -> None:
    old = '"""Old."""\n__version__ = "1.0"\n\n\ndef total():\n    """Wrong."""\n    return 1\n\n\ndef other():\n    """Only here."""\n'
    new = (
        '"""New."""\n__version__ = "1.1"\n\n\ndef total():\n    return 2\n\n\ndef other():\n    "Now here."\n\n\ndef more():\n    "More."\n'
    )
    names = run(disguise(old, like=new, rng=random.Random(0)))
    said = (names["__doc__"], names["__version__"], names["total"].__doc__, names["other"].__doc__)
    assert said == ("New.", "1.1", None, "Now here.")
    assert names["total"]() == 1 and "more" not in names


@pytest.mark.parametrize("text", ["def broken(:\n", "a = 1\0"])
def test_what_cannot_be_parsed_stays(text: str) -> None:
    assert disguise(text, like=SHOP, rng=random.Random(0)) == text


def test_parameters_and_public_names_keep_theirs() -> None:
    for seed in range(5):
        module = ast.parse(disguise(SHOP.replace(BUG, CURE), like=SHOP, rng=random.Random(seed)))
        functions = {node.name: [one.arg for one in node.args.args] for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}
        assert functions == {"total": ["prices", "coupon"], "names": ["basket"]}
