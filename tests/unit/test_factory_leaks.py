"""What a statement gives away of a solution: planted leaks are found and cut, what the tests or the project say is none."""

import pytest

from tests.draft_scene import make_draft
from trunkline.tasks.factory.leaks import Leak, find_leaks, without


@pytest.fixture
def draft(tmp_path):
    return make_draft(tmp_path)


def kinds(draft, text):
    return {leak.kind for leak in find_leaks(draft, text)}


@pytest.mark.parametrize(
    "text",
    [
        "Set `stock[name] = max(_available - count, 0)` at the end.",
        "I think `if count > _available and not partial` is missing.",
        "```diff\n+    _available = stock.get(name, 0)\n```",
    ],
)
def test_code_of_the_solution_is_a_leak(draft, text):
    assert "code" in kinds(draft, text)


def test_a_short_line_of_the_solution_is_a_leak(tmp_path):
    draft = make_draft(tmp_path, after={"parts/stock.py": "def take(stock, name, count):\n    left -= count\n    return left + 1\n"})
    assert find_leaks(draft, "It should return left + 1 there.") == [Leak("code", "return left + 1")]


def test_a_name_of_its_own_is_a_leak(draft):
    assert find_leaks(draft, "Keep it in _available first.") == [Leak("name", "_available")]


def test_a_constant_of_its_own_is_a_leak(draft):
    assert find_leaks(draft, "Take it modulo 65521.") == [Leak("number", "65521")]


@pytest.mark.parametrize(
    "text",
    [
        "`take(stock, name, count, *, partial=False)` should know `partial`.",  # a public signature
        "It should raise `ShortageError`.",
        '`take({"nut": 3}, "nut", 4, partial=True) == 0`',  # the tests have it
        "`left = stock[name] - count` goes below zero.",  # the workspace has it
        "Only 3 of the nuts are there, but taking 4 works.",
    ],
)
def test_what_is_asked_for_and_what_is_known_is_none(draft, text):
    assert find_leaks(draft, text) == []


def test_cutting_takes_the_sentence_and_leaves_its_neighbours(draft):
    text = "Taking too many parts works. Keep them in `_available` first. It should be an error."
    assert without(text, find_leaks(draft, text)) == "Taking too many parts works. It should be an error."


def test_cutting_takes_the_whole_block_of_code(draft):
    text = "Taking too many works.\n\n```python\na = 1\n_available = stock.get(name, 0)\n```\n\nIt should be an error."
    assert without(text, find_leaks(draft, text)) == "Taking too many works.\n\nIt should be an error."


def test_cutting_takes_only_the_item_that_leaks(draft):
    text = "Wanted:\n- an error\n- a line such as _available = stock.get(name, 0)\n- a keyword"
    assert without(text, find_leaks(draft, text)) == "Wanted:\n- an error\n- a keyword"


def test_nothing_is_left_to_find_after_cutting(draft):
    text = "So:\n\n    _available = stock.get(name, 0)\n\nOr modulo 65521; then `stock[name] = max(_available - count, 0)`."
    assert find_leaks(draft, without(text, find_leaks(draft, text))) == []


def test_apostrophes_in_prose_hide_nothing(draft):
    assert kinds(draft, "It doesn't use _available, which isn't right.") == {"name"}
