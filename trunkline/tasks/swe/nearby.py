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
import string
from dataclasses import dataclass
from encodings.aliases import aliases
from typing import Any

RUNGS = 3
"""On each side of a value."""

_DIGITS = "123456789"
_WHEELS = (string.ascii_lowercase, string.ascii_uppercase, _DIGITS)
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
    """With another last digit or letter at one place, the same place in all of them: else the rest would tell the true one."""
    if found := [(place, wheel) for place in range(len(value)) if (wheel := _wheel(value, place))]:
        places = [(place, wheel) for place, wheel in found if wheel == _DIGITS or not _is_in_word(value, place)] or found
        # A true 'a' is always the first of the alphabet. Where that is rare it is better not to be known for leaving it out.
        inner = [(place, wheel) for place, wheel in places if value[place] not in (wheel[0], wheel[-1])]
        place, wheel = rng.choice(inner if inner and len(inner) < 0.75 * len(places) else places)
        start = wheel.index(value[place])
        near = [[wheel[(start + sign * step) % len(wheel)] for step in range(1, RUNGS + 1)] for sign in (-1, 1)]
        below, above = [tuple(value[:place] + one + value[place + 1 :] for one in side) for side in near]
        return Ladder(below, above, not inner or (wheel != _DIGITS and _is_in_word(value, place)))
    marks = [place for place, character in enumerate(value) if character in string.digits + string.punctuation]
    if not marks:
        return Ladder((), tuple(value + one for one in rng.sample(string.ascii_lowercase, RUNGS)), True)
    place = rng.choice(marks)
    others = [one for one in (string.digits if value[place].isdigit() else _MARKS) if one != value[place]]
    return Ladder((), tuple(value[:place] + one + value[place + 1 :] for one in rng.sample(others, RUNGS)), True)


def _is_in_word(value: str, place: int) -> bool:
    """Whether a letter has another beside it."""
    return value[max(0, place - 1) : place].isalpha() or value[place + 1 : place + 2].isalpha()


def _wheel(value: str, place: int) -> str:
    """The characters that may stand at this place of a text, the last before the first: every true one has three on each side."""
    is_last_digit = not value[place + 1 : place + 2].isdigit()
    return next((wheel for wheel in _WHEELS if value[place] in wheel and (is_last_digit or wheel != _DIGITS)), "")
