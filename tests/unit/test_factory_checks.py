"""Test files in parts: functions cut out of them, and checks that stand alone."""

from __future__ import annotations

import ast

from trunkline.tasks.factory.variants.checks import function_of, split_checks, without_functions

TESTS = """import unittest

import pytest
from shop import total


def test_sums():
    prices = [1, 2]
    assert total(prices) == 3
    # nothing
    assert total([]) == 0


@pytest.mark.parametrize("price", [1, 2])
def test_one(price):
    assert total([price]) == price


class Base(unittest.TestCase):
    def test_refuses(self):
        with pytest.raises(TypeError):
            total(None)


class TestMore(Base):
    def test_negative(self):
        self.assertEqual(total([-1]), -1)
"""


def names(source: str) -> list[str]:
    """Of all functions, in order."""
    return [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]


def test_function_is_cut_out_with_its_decorators() -> None:
    text = without_functions(TESTS, {"test_one"})
    assert text is not None and "parametrize" not in text
    assert names(text) == ["test_sums", "test_refuses", "test_negative"]


def test_class_that_is_emptied_stays_a_class() -> None:
    text = without_functions(TESTS, {"TestMore::test_negative"})
    assert text is not None and text.endswith("class TestMore(Base):\n    pass\n")


def test_inherited_test_is_cut_out_where_it_is_defined() -> None:
    text = without_functions(TESTS, {"TestMore::test_refuses"})
    assert text is not None and names(text) == ["test_sums", "test_one", "test_negative"]


def test_file_is_not_cut_if_a_test_is_nowhere_in_it_or_none_would_be_left() -> None:
    assert without_functions(TESTS, {"test_generated"}) is None
    assert without_functions("def test_a():\n    assert 1\n", {"test_a"}) is None


def test_each_check_stands_alone_with_what_it_needs() -> None:
    text, checks = split_checks(TESTS, {"test_sums"})
    assert [check.text for check in checks] == [
        "prices = [1, 2]\nassert total(prices) == 3",
        "# nothing\nassert total([]) == 0",
        "prices = [1, 2]\n# nothing\nassert total([]) == 0",
    ]
    assert [name for name in names(text) if name.startswith("test")] == [check.name for check in checks]


def test_check_is_told_with_what_it_uses_and_what_is_done_with_that() -> None:
    lines = ["a = 1", "a = []", "b = 2", "def c(): return b", "a.append(c())", "other = 1", "assert other", "assert a == [2]"]
    _, checks = split_checks("def test_a():\n    " + "\n    ".join(lines) + "\n", {"test_a"})
    assert [check.text.splitlines() for check in checks] == [
        ["other = 1", "assert other"],
        lines[:7],
        [*lines[1:5], lines[7]],
        [*lines[:6], lines[7]],
    ]


def test_methods_and_tables_are_split_where_they_stand() -> None:
    text, checks = split_checks(TESTS, {"TestMore::test_refuses", "test_one"})
    assert [check.parameters for check in checks] == [("price",), ()]
    assert text.count('@pytest.mark.parametrize("price", [1, 2])') == 2
    assert "        with pytest.raises(TypeError):\n            total(None)\n\n    def test_refuses_check_" in text


def test_function_of_a_test_has_neither_file_nor_parameters() -> None:
    assert function_of("tests/test_a.py::TestA::test_b[x::y]") == "TestA::test_b"
