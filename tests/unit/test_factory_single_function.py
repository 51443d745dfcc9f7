"""Functions cut out of a module, and slips of one token in them."""

from __future__ import annotations

import pytest

from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.single_function import Example, cut_function
from trunkline.tasks.factory.slips import Slip, find_slips

MODULE = '''\
"""A module."""

import os
from itertools import chain, islice
from .other import helper

LIMIT = 3


def head(rows, most=LIMIT):
    """The first rows.

    >>> head([1, 2, 3, 4], 2)
    [1, 2]
    >>> rows = iter("ab")
    >>> head(rows)
    ['a', 'b']
    >>> list(map(head, [[1], []]))
    [[1], []]
    """
    # as a list
    return list(islice(rows, most))


def needy(x):
    return helper(x)


def bare(x): return os.path.basename(x)
'''


def test_a_function_brings_the_imports_and_constants_that_it_names_and_leaves_its_docstring() -> None:
    source = cut_function(MODULE, "head").source
    assert source == (
        "from itertools import islice\nLIMIT = 3\n\n\ndef head(rows, most=LIMIT):\n    # as a list\n    return list(islice(rows, most))\n"
    )


def test_its_examples_are_calls_of_it_alone_with_a_literal_answer() -> None:
    first, second = Example("head([1, 2, 3, 4], 2)", "[1, 2]"), Example("list(map(head, [[1], []]))", "[[1], []]")
    assert cut_function(MODULE, "head").examples == (first, second)


def test_a_function_that_needs_another_module_of_its_project_is_rejected_with_the_name() -> None:
    with pytest.raises(Rejection, match=r"needs more than itself \(helper\)"):
        cut_function(MODULE, "needy")


def test_a_function_that_is_not_there_is_rejected() -> None:
    with pytest.raises(Rejection, match="no such function"):
        cut_function(MODULE, "tail")


def test_a_function_on_one_line_is_cut_too() -> None:
    assert cut_function(MODULE, "bare").source == "import os\n\n\ndef bare(x): return os.path.basename(x)\n"


def test_slips_are_other_names_numbers_and_operators_in_one_line_each() -> None:
    source = "def f(a, b):\n    c = a + 1\n    return c < b\n"
    slips = find_slips(source, "f")
    assert Slip(2, "    c = a + 1", "    c = b + 1") in slips
    assert Slip(2, "    c = a + 1", "    c = a + 2") in slips
    assert Slip(3, "    return c < b", "    return c <= b") in slips
    assert len(slips) == len(set(slips)) and find_slips(source, "f") == slips


def test_a_slip_that_does_not_parse_is_left_out() -> None:
    assert not [slip for slip in find_slips("def f(a):\n    return f(x=a)\n", "f") if "x-=a" in slip.wrong]
