"""Single faults of a Python file: which there are, that they are readable, and that they are the same each time."""

from __future__ import annotations

import ast
import difflib

import pytest

from trunkline.tasks.factory.variants.mutations import Mutation, find_mutations

SHOP = '''"""A shop."""


class Basket:
    """What somebody buys."""

    def total(self, prices: list[int], coupon: int = 10, exact: bool = True) -> int:
        """The sum, less the coupon."""
        if not prices:  # nothing bought
            return 0
        paid = sum(prices) - len(prices) * coupon
        return max(paid, 0) if exact else paid


def first(items, default=None):
    for item in items:
        if item is not None and item >= 1:
            return item
    return default
'''


def faults(source: str) -> set[tuple[str, str]]:
    """Operator and the changed lines, stripped."""
    return {(one.operator, one.after.strip()) for one in find_mutations(source, path="a.py")}


@pytest.mark.parametrize(
    ("body", "operator", "after"),
    [
        ("if a < b: return a", "boundary", "if a <= b: return a"),
        ("if a < b: return a", "comparison", "if a > b: return a"),
        ("return a not  in b", "comparison", "return a in b"),
        ("return a + b", "arithmetic", "return a - b"),
        ("return a + 1", "one forgotten", "return a"),
        ("return a and b", "and or", "return a or b"),
        ("return a and b", "part of a condition dropped", "return b"),
        ("return not a", "not dropped", "return a"),
        ("return a[0]", "index", "return a[1]"),
        ("return a[:b]", "slice bound", "return a[:b - 1]"),
        ("return a[1:]", "slice bound dropped", "return a[:]"),
        ("return min(a, b)", "sister function", "return max(a, b)"),
        ("return a.startswith(b)", "sister function", "return a.endswith(b)"),
        ("return sorted(a, key=b)", "reverse order", "return sorted(a, key=b, reverse=True)"),
        ("return sorted(a, key=b)", "argument dropped", "return sorted(a)"),
        ("return list(a)", "call dropped", "return a"),
        ("return a.get(b, 0)", "default dropped", "return a.get(b)"),
        ("return pow(a, b)", "arguments exchanged", "return pow(b, a)"),
        ("return a if b else c", "choice exchanged", "return c if b else a"),
        ("return [x for x in a if (b)]", "filter dropped", "return [x for x in a]"),
        ("if a: return b", "condition negated", "if not a: return b"),
        ("if a is None: return b", "truth instead of None", "if not a: return b"),
        ("return True", "True False", "return False"),
        ("return a", "other variable", "return b"),
        ("a += b", "augmented assignment", "a = b"),
        ("for x in range(a): pass", "loop bound", "for x in range(a - 1): pass"),
    ],
)
def test_operator_makes_its_fault(body: str, operator: str, after: str) -> None:
    assert (operator, after) in faults(f"def f(a, b, c):\n    {body}\n")


def test_guard_is_dropped_with_all_its_lines() -> None:
    found = [one for one in find_mutations(SHOP, path="shop.py") if one.operator == "guard dropped"]
    assert [one.before for one in found] == ["        if not prices:  # nothing bought\n            return 0"]
    assert found[0].after == "" and found[0].line == 9
    assert "nothing bought" not in found[0].source


def test_break_is_taken_for_continue() -> None:
    source = "def f(a):\n    for x in a:\n        if x:\n            break\n    return a\n"
    assert ("break continue", "continue") in faults(source)


def test_statement_that_is_done_for_its_effect_is_dropped() -> None:
    source = "def f(a):\n    a.sort()\n    a[0] = 1  # why\n    return a\n"
    dropped = [one.before.strip() for one in find_mutations(source, path="a.py") if one.operator == "statement dropped"]
    assert dropped == ["a.sort()", "a[0] = 1  # why"]


def test_default_of_a_parameter_is_wrong() -> None:
    assert ("wrong default", "def total(self, prices: list[int], coupon: int = 11, exact: bool = True) -> int:") in faults(SHOP)


def test_function_is_named_with_its_class() -> None:
    assert {one.function for one in find_mutations(SHOP, path="shop.py")} == {"Basket.total", "first"}


def test_each_fault_is_one_small_change_of_the_text_that_parses() -> None:
    for one in find_mutations(SHOP, path="shop.py"):
        ast.parse(one.source)
        changed = [line for line in difflib.ndiff(SHOP.splitlines(), one.source.splitlines()) if line[0] in "+-"]
        assert 1 <= len(changed) <= 2, one


def test_no_fault_is_there_twice_and_none_means_the_same_as_before() -> None:
    trees = [ast.dump(ast.parse(one.source)) for one in find_mutations(SHOP, path="shop.py")]
    assert len(trees) == len({*trees, ast.dump(ast.parse(SHOP))}) - 1


def test_same_source_gives_the_same_faults() -> None:
    assert find_mutations(SHOP, path="shop.py") == find_mutations(SHOP, path="shop.py")


@pytest.mark.parametrize(
    "source",
    [
        'def f(a: "1 < 2" = None) -> int | str: ...\n',
        'def f(a):\n    """Text with 1 + 1."""\n    return f"{a + 1}"\n',
        "def f(a):\n    assert a > 1\n    raise ValueError(a + 1)\n",
        'def f(a):\n    return "a" + a\n',
        "LIMIT = 1 + 1\n",
        "def f(:\n",
    ],
)
def test_what_is_no_behaviour_of_a_function_is_left_alone(source: str) -> None:
    assert find_mutations(source, path="a.py") == []


def test_columns_after_letters_of_several_bytes_are_right() -> None:
    (found,) = [one for one in find_mutations('def f(a):\n    return ("äöü€", a < 1)\n', path="a.py") if one.operator == "boundary"]
    assert found.after == '    return ("äöü€", a <= 1)'


def test_line_ends_of_windows_stay() -> None:
    found = find_mutations("def f(a):\r\n    # why\r\n    return a < 1\r\n", path="a.py")
    assert "def f(a):\r\n    # why\r\n    return a <= 1\r\n" in [one.source for one in found]


def test_indented_function_with_a_text_over_several_lines_is_parsed() -> None:
    source = "class A:\n    @property\n    def f(self):\n        text = '''\n  not indented\n'''\n        return len(text) > 1\n"
    assert ("boundary", "return len(text) >= 1") in faults(source)


def test_mutation_does_not_print_whole_files() -> None:
    found: Mutation = find_mutations(SHOP, path="shop.py")[0]
    assert "A shop" not in repr(found)
