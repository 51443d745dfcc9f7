"""Cuts an expression into numbers, names and signs."""

import re
from dataclasses import dataclass

PATTERN = re.compile(r"(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>\*\*|[-+*/%(),])")


class CalcError(ValueError):
    """An expression can't be evaluated; `column` is where the trouble is, from 1."""

    def __init__(self, column: int, reason: str) -> None:
        super().__init__(f"column {column}: {reason}")
        self.column = column
        self.reason = reason


@dataclass(frozen=True)
class Token:
    """A piece of an expression."""

    kind: str
    """number, name, sign or end."""
    text: str
    """As it was written; "" at the end."""
    column: int
    """Where its first character stands in the expression, from 1. The end stands one behind the last character."""


def tokenize(text: str) -> list[Token]:
    """The tokens of `text` and one for its end. Blanks, tabs and line breaks part tokens and are else ignored.

    Raises CalcError for a character that can't begin a token ("unexpected character X").
    """
    tokens: list[Token] = []
    column = 1
    for word in text.split():
        place = 0
        while place < len(word):
            match = PATTERN.match(word, place)
            if match is None:
                raise CalcError(column + place, f"unexpected character {word[place]}")
            tokens.append(Token(str(match.lastgroup), match[0], column + place))
            place = match.end()
        column += len(word) + 1
    tokens.append(Token("end", "", len(text) + 1))
    return tokens
