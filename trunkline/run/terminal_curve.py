"""A curve in a few lines of text: braille dots, or stars where the output knows no braille. Owns characters; reads no run.

1.00 ┤                          ⢀⣀⡠⠤⠒⠒⠉●
     │               ⣀⡠⠤⠒⠒⠉⠉
0.00 ┤●⠤⠤⠤⠒⠒⠉⠉⠉
     └──────────────────────────────────
      0                              250
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_DOTS_ACROSS, _DOTS_DOWN = 2, 4
_BRAILLE = 0x2800
# Bit of each dot of a braille character, by row and column (Unicode standard, chapter 21).
_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_LEAST_COLUMNS = 8


@dataclass(frozen=True)
class Signs:
    """The characters of axes and marks."""

    tick: str
    """The vertical axis beside a number."""
    side: str
    """The vertical axis elsewhere."""
    corner: str
    """Where the axes meet."""
    floor: str
    """The horizontal axis."""
    mark: str
    """A point that stands for itself."""
    is_braille: bool
    """Whether lines are drawn in braille."""

    @classmethod
    def for_encoding(cls, encoding: str) -> Signs:
        """Braille where the output is some UTF, ASCII elsewhere."""
        is_rich = encoding.lower().startswith("utf")
        return cls("┤", "│", "└", "─", "●", True) if is_rich else cls("+", "|", "+", "-", "o", False)


def curve_lines(
    points: Sequence[tuple[float, float]], marks: Sequence[tuple[float, float]], *, width: int, signs: Signs, height: int = 8
) -> list[str]:
    """Lines of at most `width` characters: `points` joined by a line, `marks` on top of it; x from 0, y at least 0..1."""
    highest_x = max([x for x, _ in (*points, *marks)], default=1) or 1
    ys = [y for _, y in (*points, *marks)]
    low, high = min([0.0, *ys]), max([1.0, *ys])
    labels = _side_labels(low, high, height)
    margin = max(map(len, labels)) + 2
    columns = max(_LEAST_COLUMNS, width - margin)

    def dot(x: float, y: float) -> tuple[int, int]:
        across = round(x / highest_x * (columns * _DOTS_ACROSS - 1))
        return across, round((high - y) / (high - low) * (height * _DOTS_DOWN - 1))

    grid = _grid([dot(x, y) for x, y in points], columns=columns, height=height, signs=signs)
    for x, y in marks:
        across, down = dot(x, y)
        grid[down // _DOTS_DOWN][across // _DOTS_ACROSS] = signs.mark
    lines = [
        f"{label:>{margin - 2}} {signs.tick if label else signs.side}{''.join(row)}".rstrip()
        for label, row in zip(labels, grid, strict=True)
    ]
    lines.append(" " * (margin - 1) + signs.corner + signs.floor * columns)
    lines.append(f"{' ' * margin}0{highest_x:>{columns - 1}g}")
    return lines


def _side_labels(low: float, high: float, height: int) -> list[str]:
    labels = [""] * height
    labels[0], labels[-1] = f"{high:.2f}", f"{low:.2f}"
    return labels


def _grid(dots: Sequence[tuple[int, int]], *, columns: int, height: int, signs: Signs) -> list[list[str]]:
    bits = [[0] * columns for _ in range(height)]
    for across, down in _line_through(dots):
        bits[down // _DOTS_DOWN][across // _DOTS_ACROSS] |= _BITS[down % _DOTS_DOWN][across % _DOTS_ACROSS]
    if signs.is_braille:
        return [[chr(_BRAILLE + cell) if cell else " " for cell in row] for row in bits]
    return [["*" if cell else " " for cell in row] for row in bits]


def _line_through(dots: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Every dot on the way from one to the next."""
    yield from dots[:1]
    for (x0, y0), (x1, y1) in itertools.pairwise(dots):
        num = max(abs(x1 - x0), abs(y1 - y0))
        yield from ((round(x0 + (x1 - x0) * i / num), round(y0 + (y1 - y0) * i / num)) for i in range(1, num + 1))
