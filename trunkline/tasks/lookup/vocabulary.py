"""Every text of the lookup taskset, as pieces and characters. Owns the wording; a tokenizer is built from it elsewhere.

Template, tool syntax and exponents are whole pieces; names and digits are spelled by characters, because a vocabulary
that merges them memorises the training names and cannot copy unseen ones.
"""

from __future__ import annotations

import string

WHAT_IS_THE = "What is the "
AREA_OF = "area of "
POPULATION_OF = "population of "
THE_CAPITAL_OF = "the capital of "
HOW_MANY_LIVE_IN = "How many people live in "
AND_IN = " and in "
WHICH_HAS_MORE = "Which has more inhabitants, "
OR = " or "
AND = " and "
AND_WHERE_ITS_ROAD_ENDS = " and where does its road end?"

POPULATION = "population"
CAPITAL = "capital"
AREA = "area"
NEXT = "next"
NAME = "name"
COUNTRY = "country"

UNKNOWN_ENTITY = "none"
BAD_ARGUMENTS = "error: bad arguments"
UNKNOWN_TOOL = "error: no such tool"
OVER_BUDGET = "error: no calls left"
TIMED_OUT = "timeout. try again"  # spelled by characters: only worlds with timeouts say it

_SENTENCES = (WHAT_IS_THE, AREA_OF, POPULATION_OF, THE_CAPITAL_OF, HOW_MANY_LIVE_IN, AND_IN, WHICH_HAS_MORE, OR, AND)
_CALLS = (POPULATION, CAPITAL, AREA, NAME, COUNTRY)
_RESULTS = (UNKNOWN_ENTITY, BAD_ARGUMENTS, UNKNOWN_TOOL, OVER_BUDGET)
_EXPONENTS = tuple(f"e{exponent}" for exponent in range(1, 11))

PIECES: tuple[str, ...] = (*_SENTENCES, *_CALLS, *_RESULTS, *_EXPONENTS)
"""Matched whole, longest first, wherever they occur in a text."""

ROAD_PIECES: tuple[str, ...] = (AND_WHERE_ITS_ROAD_ENDS, NEXT)
"""More of them, where there are questions about roads; apart, so that other policies keep their token ids."""

NAME_CHARACTERS = string.ascii_letters + " '-."
"""What names are spelled with."""

CHARACTERS = NAME_CHARACTERS + string.digits + "?"
"""Single characters; with PIECES they cover every text of the taskset."""


def is_spelled(name: str) -> bool:
    """True if `name` is cut into characters alone wherever it stands: no piece lies in it or reaches into it.

    Pieces that cross a name's edge would have to begin inside it and go on with what follows a name (' or ', ' and ',
    ' and in ', '?' or the end), or the other way round; no piece does unless it begins or ends with a blank of the name.
    """
    return name == name.strip() and set(name) <= set(NAME_CHARACTERS) and not any(piece in name for piece in PIECES)
