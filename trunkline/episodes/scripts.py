"""Prose in a script that a conversation is not written in, by Unicode ranges. Owns the measure, knows no language.

It tells Chinese from English, not French from English. Not prose, and not looked at: code between backticks, URLs, words that touch
code such as `range(10)`; and runs too short to be more than a name. A quotation of what was given is not foreign either. A task
that asks for another script, a translation, asks for what this calls a fault: do not weigh it there.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

FEWEST_WORDS = 6
"""Foreign words in a row that are more than a name."""
FEWEST_CHARACTERS = 10
"""The same in scripts that put no blanks between words."""
LEAST_SHARE = 0.05
"""Of a reply's letters that such runs must hold."""
NATIVE_SHARE = 0.1
"""Of the letters of what was given: a script that has more is one of the conversation's."""

_RANGES = (
    (0x41, 0x5A, "Latin"),
    (0x61, 0x7A, "Latin"),
    (0xAA, 0x24F, "Latin"),
    (0x370, 0x3FF, "Greek"),
    (0x400, 0x52F, "Cyrillic"),
    (0x531, 0x58F, "Armenian"),
    (0x590, 0x5FF, "Hebrew"),
    (0x600, 0x6FF, "Arabic"),
    (0x750, 0x77F, "Arabic"),
    (0x8A0, 0x8FF, "Arabic"),
    (0x900, 0x97F, "Devanagari"),
    (0x980, 0x9FF, "Bengali"),
    (0xB80, 0xBFF, "Tamil"),
    (0xE00, 0xE7F, "Thai"),
    (0x10A0, 0x10FF, "Georgian"),
    (0x1100, 0x11FF, "Hangul"),
    (0x1E00, 0x1EFF, "Latin"),
    (0x1F00, 0x1FFF, "Greek"),
    (0x3040, 0x30FF, "Kana"),
    (0x3130, 0x318F, "Hangul"),
    (0x3400, 0x4DBF, "Han"),
    (0x4E00, 0x9FFF, "Han"),
    (0xAC00, 0xD7A3, "Hangul"),
    (0xF900, 0xFAFF, "Han"),
    (0x20000, 0x2FFFF, "Han"),
)
_STARTS = [start for start, _, _ in _RANGES]
_UNSPACED = frozenset(("Han", "Kana", "Thai"))
_NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", re.DOTALL)
_LETTERS = re.compile(r"[^\W\d_]+")
_PROSE_GAP = re.compile(r"""[\s,.;:!?'"«»“”‘’、。，！？：；（）()《》「」…—–-]*""")
_CODE_GAPS = frozenset((".", "(", ":", "::", "()", "()."))


@dataclass(frozen=True)
class ForeignProse:
    """What is foreign in a reply."""

    script: str
    """The script that most of it is written in."""
    share: float
    """Of the reply's letters, in (0, 1]."""
    excerpt: str
    """The longest run."""


@dataclass(frozen=True)
class _Piece:
    """Letters of one script that touch each other."""

    script: str
    start: int
    end: int


def foreign_prose(reply: str, *, given: str) -> ForeignProse | None:
    """What a reply says in scripts that what was `given` is not written in; None below the thresholds above.

    Without letters in `given` no script is foreign.
    """
    native = _native_scripts(given)
    prose = _NOT_PROSE.sub("\n", reply)
    pieces = [*_pieces(prose)]
    num_letters = sum(piece.end - piece.start for piece in pieces)
    if not native or not num_letters:
        return None
    runs = [run for run in _runs(prose, [piece for piece in pieces if piece.script not in native]) if _is_prose(run)]
    runs = [run for run in runs if prose[run[0].start : run[-1].end] not in given]
    foreign: Counter[str] = Counter()
    for piece in chain.from_iterable(runs):
        foreign[piece.script] += piece.end - piece.start
    if not foreign or foreign.total() < LEAST_SHARE * num_letters:
        return None
    longest = max(runs, key=lambda run: run[-1].end - run[0].start)
    return ForeignProse(foreign.most_common(1)[0][0], foreign.total() / num_letters, prose[longest[0].start : longest[-1].end])


def script_of(character: str) -> str | None:
    """The script of a letter; None of other characters, and of letters outside the ranges above."""
    place = bisect_right(_STARTS, ord(character)) - 1
    if place < 0 or ord(character) > _RANGES[place][1]:
        return None
    return _RANGES[place][2]


def _native_scripts(given: str) -> frozenset[str]:
    letters: Counter[str] = Counter()
    for piece in _pieces(_NOT_PROSE.sub("\n", given)):
        letters[piece.script] += piece.end - piece.start
    native = {script for script, count in letters.items() if count >= NATIVE_SHARE * letters.total()}
    return frozenset(native | {"Han"} if "Kana" in native else native)  # Japanese is written in both


def _pieces(text: str) -> Iterator[_Piece]:
    for match in _LETTERS.finditer(text):
        start, script = match.start(), script_of(text[match.start()])
        for place in range(match.start() + 1, match.end() + 1):
            here = script_of(text[place]) if place < match.end() else None
            if place == match.end() or here != script:
                if script is not None:
                    yield _Piece(script, start, place)
                start, script = place, here


def _runs(text: str, pieces: list[_Piece]) -> Iterator[list[_Piece]]:
    """Pieces of one script with nothing but blanks and the punctuation of prose between them; Japanese counts as one script."""
    run: list[_Piece] = []
    for piece in pieces:
        is_same = bool(run) and {piece.script, run[-1].script} in ({piece.script}, {"Han", "Kana"})
        if run and not (is_same and _is_prose_gap(text[run[-1].end : piece.start])):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _is_prose_gap(gap: str) -> bool:
    return gap not in _CODE_GAPS and _PROSE_GAP.fullmatch(gap) is not None


def _is_prose(run: list[_Piece]) -> bool:
    if run[0].script in _UNSPACED:
        return sum(piece.end - piece.start for piece in run) >= FEWEST_CHARACTERS
    return len(run) >= FEWEST_WORDS
