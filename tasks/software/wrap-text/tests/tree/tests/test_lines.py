from itertools import pairwise

import pytest
from reflow import justify, wrap


def test_words_are_broken_into_lines():
    assert wrap("the quick brown fox jumps", 12) == ["the quick", "brown fox", "jumps"]


def test_a_long_word_is_never_cut():
    assert wrap("an incomprehensible word", 8) == ["an", "incomprehensible", "word"]


def test_no_words_no_lines():
    assert wrap("  \n ", 10) == []


def test_a_prefix_must_leave_room():
    with pytest.raises(ValueError):
        wrap("words", 4, first="    ")
    with pytest.raises(ValueError):
        wrap("words", 4, rest="    ")


def test_a_word_that_just_fits_stays_in_its_line():
    assert wrap("the quick brown fox jumps", 9) == ["the quick", "brown fox", "jumps"]
    assert wrap("aa bb cc", 8) == ["aa bb cc"]


def test_the_first_prefix_does_not_narrow_later_lines():
    assert wrap("one two three four five", 12, first="Note: ") == ["Note: one", "two three", "four five"]


def test_later_lines_leave_room_for_their_prefix():
    assert wrap("one two three four five", 13, rest="    ") == ["one two three", "    four five"]
    assert wrap("aa bb cc dd ee", 8, first="- ", rest="    ") == ["- aa bb", "    cc", "    dd", "    ee"]


def test_a_long_word_behind_a_prefix():
    assert wrap("go immeasurably on", 9, first="* ", rest="  ") == ["* go", "  immeasurably", "  on"]


@pytest.mark.parametrize("width", [14, 15, 19, 24])
def test_no_line_is_too_long_and_none_could_take_another_word(width):
    text = "pack my box with five dozen liquor jugs before the clock strikes ten"
    lines = wrap(text, width, first="1. ", rest="      ")
    assert all(len(line) <= width for line in lines)
    for line, following in pairwise(lines):
        assert len(line) + 1 + len(following.split()[0]) > width
    assert lines[0].startswith("1. pack")
    assert lines[-1].endswith(" ten")


@pytest.mark.parametrize(
    ("line", "width", "stretched"),
    [("a bc d", 9, "a   bc  d"), ("alone", 9, "alone"), ("  to be", 9, "  to   be"), ("full line", 9, "full line")],
)
def test_lines_are_stretched_from_the_left(line, width, stretched):
    assert justify(line, width) == stretched
