"""Pieces of Python text for a tokenizer made for some tasks. Owns how text is cut; which texts there are, the taskset says."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

CHARACTERS = "\n" + "".join(sorted(set(string.printable) - set(string.whitespace) | {" "}))
"""What everything else is spelled with: ASCII."""

_PIECES = re.compile(
    r"\n+ *"
    r"| {2,}"
    r"| (?:[-+*/%<>=!&|^]+|not in|is not|in|is|and|or|if|else|for|as|import) "
    r"|(?:return|yield|not|if|elif|while|for|def|class|from|import|raise|lambda|with|del) "
    r"|[A-Za-z_]\w+(?:\.py)?"
    r"|\d\d+"
    r"|, |: |\)+:?|\(\)|\[\]|\{\}|[-+*/%<>=!]{2,}"
)
_FEWEST = 2
_OPERATORS = ("<", "<=", ">", ">=", "==", "!=", "+", "-", "*", "/", "//", "%", "=", "+=", "-=", "and", "or", "in", "not in", "is", "is not")


def pieces_of(texts: Iterable[str]) -> tuple[str, ...]:
    """What a tokenizer keeps whole: names, numbers, keywords and operators with their blanks, indented line breaks; each once, sorted.

    Operators are there whether the texts have them or not: a fault may be one that they have not.
    """
    found = {piece for text in texts for piece in _PIECES.findall(text)} | {f" {operator} " for operator in _OPERATORS}
    return tuple(sorted(piece for piece in found if len(piece) >= _FEWEST))
