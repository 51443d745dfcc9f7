"""Values that could stand where another one stands: what a test's constant is changed to. Owns no test; knows values alone.

A forger who sees all of them must not tell which is the true one. So each value has a ladder: three rungs below it and three above,
of its own look. What is dealt is a stretch of the ladder that was put around the true value at random, which is then as likely the
smallest as the largest. And all values of a kind share their rungs, so that each of those that are dealt could have been the true one.

Some values stand out whatever is put beside them: there is nothing below '', too many tests expect None, 1 or 100, and who knows how
words are spelt sees which of four texts has no slip in it.
"""

from __future__ import annotations

import math
import random
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from encodings.aliases import aliases
from typing import Any

RUNGS = 3
"""On each side of a value."""

_MARKS = ",.;:!?-_"
_CODECS = frozenset(aliases) | frozenset(aliases.values())
_SMALL = 4
"""Numbers whose digits without zeros at the end are below this stand out: 0, 1, 2, 3, 10, 0.2, 300. They are too frequent."""


@dataclass(frozen=True)
class Ladder:
    """What may stand beside a value."""

    below: tuple[Any, ...]
    """Smaller ones, the nearest first."""
    above: tuple[Any, ...]
    """Larger ones, the nearest first."""
    stands_out: bool
    """Among these the true value would be known."""

    @property
    def rungs(self) -> list[tuple[int, Any]]:
        """Each with its distance from the true value: -3 to 3, without 0; the nearest first."""
        found = [(-step, value) for step, value in enumerate(self.below, 1)] + [(step, value) for step, value in enumerate(self.above, 1)]
        return sorted(found, key=lambda rung: abs(rung[0]))


def is_codec(value: object) -> bool:
    """Whether a text names an encoding, which is no answer of any code under test."""
    return isinstance(value, str) and value.lower().replace("-", "_") in _CODECS


def stretch(rng: random.Random, most: int) -> list[int]:
    """So many distances of rungs that stand side by side, with the true value at any place among them."""
    num_below = rng.randint(0, most)
    return [step for step in range(-num_below, most - num_below + 1) if step]


def ladder(value: object, rng: random.Random, *, has_sign: bool = False) -> Ladder:
    """Values that do not equal this one; of a text and a float other ones at each call. Empty if it cannot be changed.

    With a minus before it a number gets no other sign, which nobody writes so.
    """
    if value is None:
        return Ladder((), (False, True), True)
    if isinstance(value, bool):
        return Ladder((), (not value, None), True)
    if isinstance(value, int):
        return _integers(value, 1 if has_sign else None)
    if isinstance(value, float):
        return _floats(value, rng)
    if isinstance(value, str):
        return _texts(value, rng)
    if isinstance(value, bytes):
        found = _texts(value.decode("latin-1"), rng)
        below, above = [tuple(one.encode("latin-1") for one in side) for side in (found.below, found.above)]
        return Ladder(below, above, found.stands_out)
    return Ladder((), (), True)


def _integers(value: int, low: int | None) -> Ladder:
    """As round as it is: of 4000 it is 3000, 5000, ..., of 9 it is 8, 11, ...; 0 counts as one digit."""
    digits, num_zeros = _significant(value)
    sides: list[list[int]] = [[], []]
    for sign, side in zip((-1, 1), sides, strict=True):
        number = digits
        while len(side) < RUNGS:
            number += sign
            if number % 10 or (number == 0 and not num_zeros):
                side.append(number * 10**num_zeros)
    below, above = sides
    return Ladder(tuple(one for one in below if low is None or one >= low), tuple(above), digits < _SMALL)


def _significant(value: int) -> tuple[int, int]:
    """Without the zeros at its end, and how many these are."""
    num_zeros = 0
    while value and value % 10 == 0:
        value, num_zeros = value // 10, num_zeros + 1
    return value, num_zeros


def _floats(value: float, rng: random.Random) -> Ladder:
    """With about as many digits, further away than a sensible tolerance: each rung a third to two thirds more than the one below it."""
    if not math.isfinite(value):
        return Ladder((), (), True)
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, decimals = mantissa.partition(".")
    digits, num_zeros = _significant(int(whole + decimals))
    power = int(exponent or 0) - len(decimals) + num_zeros
    if not digits:
        return Ladder((), (0.5, 1.0, 1.5), True)
    stands_out = digits < _SMALL
    if stands_out:
        digits, power = digits * 100, power - 2
    if 1 < digits < 10:
        sides = [[digits + sign * place for place in range(1, RUNGS + 1)] for sign in (-1, 1)]
    else:
        sides = [_rungs(digits, rng, sign) for sign in (-1, 1)]
    below, above = [tuple(one for one in (float(f"{number}e{power}") for number in side) if math.isfinite(one)) for side in sides]
    return Ladder(below, above, stands_out or len(above) < RUNGS or len(set(below)) < RUNGS)


def _rungs(digits: int, rng: random.Random, sign: int) -> list[int]:
    found = []
    for _ in range(RUNGS):
        percent = rng.randint(133, 167)
        digits = digits * percent // 100 if sign > 0 else digits * 100 // percent
        digits += 0 if digits % 10 else sign  # else it would be rounder than the others
        found.append(digits)
    return found


def _texts(value: str, rng: random.Random) -> Ladder:
    """With another number or letter at one place, the same place in all of them: else the rest would tell the true one."""
    found = [*_numbers(value), *_letters(value)]
    if found:
        start, old, near = rng.choice([one for one in found if not one[2].stands_out] or found)
        ends = value[:start], value[start + len(old) :]
        below, above = [tuple(new.join(ends) for new in side) for side in (near.below, near.above)]
        return Ladder(below, above, near.stands_out)
    places = [place for place, character in enumerate(value) if character in string.punctuation]
    if not places:
        return Ladder((), tuple(value + one for one in rng.sample(string.ascii_lowercase, RUNGS)), True)
    place = rng.choice(places)
    others = [one for one in _MARKS if one != value[place]]
    return Ladder((), tuple(value[:place] + one + value[place + 1 :] for one in rng.sample(others, RUNGS)), True)


_Piece = tuple[int, str, Ladder]
"""Where it starts in a text, what it is, and what may stand there."""


def _numbers(value: str) -> Iterator[_Piece]:
    for run in re.finditer("[0-9]{1,18}", value):
        near = _integers(int(run[0]), 0)
        width = len(run[0]) if run[0][0] == "0" else 0
        below, above = [tuple(f"{number:0{width}}" for number in side) for side in (near.below, near.above)]
        yield run.start(), run[0], Ladder(below, above, near.stands_out)


def _letters(value: str) -> Iterator[_Piece]:
    """The alphabet is a ring here, so that each letter has three on both sides; a true 'a' is the first of it all the same."""
    for place, letter in enumerate(value):
        alphabet = next((one for one in (string.ascii_lowercase, string.ascii_uppercase) if letter in one), "")
        if alphabet:
            start = alphabet.index(letter)
            below, above = [tuple(alphabet[(start + sign * step) % 26] for step in range(1, RUNGS + 1)) for sign in (-1, 1)]
            is_in_word = value[max(0, place - 1) : place].isalpha() or value[place + 1 : place + 2].isalpha()
            yield place, letter, Ladder(below, above, is_in_word or letter in (alphabet[0], alphabet[-1]))
