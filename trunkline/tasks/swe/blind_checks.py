"""What the host asks of what blind tests see, and which answers nobody knows without the solution. Owns comparing, no test and no run.

    what a test of the work sees, what it sees with the solution ─► differences
    what it sees with the solution, and before the change        ─► hidden_answers

Whatever the work tells may be made up. So nothing is read before its length is known, and what has no sense is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trunkline.tasks.swe.outcomes import TestRun
from trunkline.tasks.swe.told import NOTHING_TOLD, Told

_SHORTEST = 5
"""Letters of words that nobody says by chance."""
_FEW = frozenset(json.dumps(value) for value in (None, True, False, -1, 0, 1, "", ["list", []], ["tuple", []], ["dict", []], ["set", []]))
_BITS, _BITS_OF_SHORT, _SHORT = 8, 3, 3
"""Of what hides an answer; of a number or text so short in JSON: one digit or two, one letter."""
_BITS_IN_ORDER = 2
"""Of what is told, in a collection that is not: it has to be put in its place."""
_COLLECTIONS = frozenset({"list", "tuple", "set", "dict"})
_UNTOLD = frozenset({"other", "large"})
_MOST_TIMES, _MOST_MORE = 2, 200
"""How much longer than the solution's an answer may be: a text that holds all words would hold the right ones."""
_WORDS_OF_PATTERN = re.compile(r"(?:[^\W_]|[ ,:;'\"_-])+")


@dataclass(frozen=True)
class Check:
    """What the host asks of one place. `Check("contains", '"usage"')`."""

    kind: Literal["equal", "contains", "raises", "warns"]
    """equal: to what the solution makes it see; contains: these words, or this item; raises, warns: of its kinds, and one says this."""
    taken_out: str = ""
    """The item as JSON, or the pattern; '' for equal, and where nothing is asked but the kind."""
    is_open: bool = False
    """What is expected is still there where the test runs, under some name: it can be read."""


@dataclass(frozen=True)
class BlindFile:
    """A test file without expectations."""

    text: str
    """What is run."""
    checks: tuple[Check, ...]
    """By place."""
    literals: frozenset[str]
    """The constants that are left in it, as JSON: no secret."""


def differences(files: Mapping[str, BlindFile], seen: Mapping[str, Sequence[str]], run: TestRun) -> list[str]:
    """Where blind tests see what they must not, in words without values; [] if nowhere. `seen` is what the solution makes them see."""
    if run.complaint:
        return [run.complaint]
    found = [f"{path} cannot be collected without its expectations: {words}" for path, words in run.faults.items()]
    for test, lines in seen.items():
        outcome, told = run.outcomes.get(test), run.seen.get(test, ())
        checks = files[test.partition("::")[0]].checks
        if outcome is None or outcome.outcome != "passed":
            found.append(f"{test} {outcome.outcome if outcome else 'is missing'} without its expectations")
        elif len(told) != len(lines) or not all(_is_right(*both, checks) for both in zip(told, lines, strict=True)):
            place = next((place for place, both in enumerate(zip(told, lines, strict=False), 1) if not _is_right(*both, checks)), 0)
            found.append(
                f"{test} sees otherwise than with the solution ({f'place {place}' if place else f'{len(told)} places'} of {len(lines)})"
            )
    return found


def hides_answers(file: BlindFile, seen: Sequence[str], before: Sequence[str], told: Told = NOTHING_TOLD) -> bool:
    """Whether nobody comes upon what a test sees with the solution, but once in some hundred times, without doing what it asks for.

    What it saw before the change tells nothing, nor what can be read where it runs, stands in what is left of it or in the instruction,
    or is a frequent value.
    """
    new = {line for line in seen if not any(_is_right(other, line, file.checks) for other in before)}
    return sum(_bits(line, file, told) for line in new) >= _BITS


def _is_right(told: str, line: str, checks: Sequence[Check]) -> bool:
    """Whether what is told answers as the solution's line, or in another way that the test lets pass."""
    place, expected = json.loads(line)
    check = checks[place]
    if check.kind == "equal":
        return told == line
    if len(told) > _MOST_TIMES * len(line) + _MOST_MORE:
        return False
    try:
        told_place, value = json.loads(told)
    except RecursionError:
        return False
    if told_place != place:
        return False
    if check.kind == "contains":
        return _contains(value, json.loads(check.taken_out))
    return _is_told_of(check, value, expected)


def _is_told_of(check: Check, value: Any, expected: Any) -> bool:
    """Whether an exception or warnings are of the solution's kinds, and one says what it must. Another warning may be among them."""
    told_of, of_it = _told_of(value), _told_of(expected)
    if not of_it or _word(value) != _word(expected) or len({kind for kind, _ in told_of}) > len({kind for kind, _ in of_it}) + 1:
        return False
    return {kind for kind, _ in of_it} <= {kind for kind, _ in told_of} and _one_says(told_of, check.taken_out)


def _bits(line: str, file: BlindFile, told: Told) -> int:
    """How much a right guess of it is worth, roughly and not more than that."""
    place, value = json.loads(line)
    check, literals = file.checks[place], file.literals
    if check.is_open:
        return 0
    if check.kind == "contains":
        item = json.loads(check.taken_out)
        is_known = any(_contains(json.loads(one), item) or one == check.taken_out for one in literals)
        letters = item if isinstance(item, str) else check.taken_out
        return 0 if is_known or len(letters) < _SHORTEST or all(map(told.tells, _leaves(item))) else _BITS
    if check.kind != "equal":
        # A kind alone is one of three or four that anybody would try.
        words = max(_WORDS_OF_PATTERN.findall(check.taken_out), key=len, default="")
        is_known = told.says(check.taken_out) or any(_is_said(check.taken_out, json.loads(one)) for one in literals)
        return 0 if len(words) < _SHORTEST or is_known else _BITS
    if json.dumps(value) in literals or told.tells_whole(value):
        return 0
    of_told = _BITS_IN_ORDER if _word(value) in _COLLECTIONS else 0
    leaves = {json.dumps(leaf): leaf for leaf in _leaves(value)}
    return sum(_bits_of_leaf(text, of_told if told.tells(leaf) else _BITS) for text, leaf in leaves.items())


def _bits_of_leaf(text: str, most: int) -> int:
    return 0 if text in _FEW else min(most, _BITS_OF_SHORT if len(text) <= _SHORT else _BITS)


def _leaves(value: Any) -> Iterator[Any]:
    """What a value is made of, as far as it is told."""
    word = _word(value)
    if word in _UNTOLD:
        return
    if word not in _COLLECTIONS:
        yield value
        return
    for item in value[1]:
        for part in item if word == "dict" else (item,):
            yield from _leaves(part)


def _word(value: Any) -> str:
    """What a list of the observer's says first; '' of anything else."""
    return str(value[0]) if isinstance(value, list) and value else ""


def _contains(value: Any, item: Any) -> bool:
    if isinstance(value, str):
        return isinstance(item, str) and item in value
    if _word(value) not in _COLLECTIONS or len(value) != 2 or not isinstance(value[1], list):
        return False
    return item in ([pair[0] for pair in value[1] if isinstance(pair, list) and pair] if _word(value) == "dict" else value[1])


def _told_of(value: Any) -> list[tuple[str, str]]:
    """Exceptions and warnings: kind and message."""
    if _word(value) == "raised" and len(value) == 3:
        return [(str(value[1]), str(value[2]))]
    if _word(value) == "warned" and len(value) == 2 and isinstance(value[1], list):
        return [(str(one[0]), str(one[1])) for one in value[1] if isinstance(one, list) and len(one) == 2]
    return []


def _one_says(told_of: Sequence[tuple[str, str]], pattern: str) -> bool:
    return any(_is_said(pattern, message) for _, message in told_of)


def _is_said(pattern: str, message: Any) -> bool:
    try:
        return isinstance(message, str) and re.search(pattern, message) is not None
    except re.error:
        return False
