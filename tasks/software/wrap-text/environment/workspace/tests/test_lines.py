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


@pytest.mark.parametrize(
    ("line", "width", "stretched"),
    [("a bc d", 9, "a   bc  d"), ("alone", 9, "alone"), ("  to be", 9, "  to   be"), ("full line", 9, "full line")],
)
def test_lines_are_stretched_from_the_left(line, width, stretched):
    assert justify(line, width) == stretched
