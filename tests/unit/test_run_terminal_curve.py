"""Curves in text: every line within the width, points where they belong, ASCII where there is no braille."""

from __future__ import annotations

import pytest

from trunkline.run.terminal_curve import Signs, curve_lines

BRAILLE, ASCII = Signs.for_encoding("utf-8"), Signs.for_encoding("ascii")


@pytest.mark.parametrize("width", [20, 40, 100])
@pytest.mark.parametrize("signs", [BRAILLE, ASCII])
def test_lines_keep_the_width_and_their_number(width: int, signs: Signs) -> None:
    lines = curve_lines([(step, (step % 7) / 7) for step in range(1, 300)], [(0, 0.2), (299, 0.9)], width=width, signs=signs, height=6)
    assert len(lines) == 8
    assert max(map(len, lines)) == width


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    lines = curve_lines([(0, 0.0), (10, 1.0)], [], width=30, signs=ASCII, height=5)
    places = [line.index("*") for line in lines[:5]]
    assert places == sorted(places, reverse=True)
    assert lines[0].endswith("*") and lines[0].startswith("1.00 +") and lines[4].startswith("0.00 +")
    assert lines[6].split() == ["0", "10"]


def test_marks_stand_on_top_of_the_line() -> None:
    lines = curve_lines([(0, 1.0), (10, 1.0)], [(0, 1.0), (10, 0.0)], width=30, signs=BRAILLE, height=4)
    assert lines[0].partition("┤")[2][0] == "●" and lines[3].endswith("●")


def test_the_axis_grows_with_values_beyond_0_and_1() -> None:
    lines = curve_lines([(1, -0.5), (2, 2.0)], [], width=30, signs=ASCII, height=4)
    assert lines[0].startswith(" 2.00 +") and lines[3].startswith("-0.50 +")


@pytest.mark.parametrize("points", [[], [(1, 0.5)]])
def test_few_points_are_drawn_too(points: list[tuple[float, float]]) -> None:
    lines = curve_lines(points, [], width=30, signs=ASCII, height=4)
    assert sum("*" in line for line in lines) == len(points)


def test_ascii_stays_ascii() -> None:
    assert "".join(curve_lines([(1, 0.1), (9, 0.9)], [(9, 0.9)], width=40, signs=ASCII)).isascii()
