"""Slips of one token in a function's lines: another name, number, operator or keyword. Owns no choice among them; runs nothing.

Finer than variants' faults: tiny policies practise on them, so that there are dozens in a function of five lines.
"""

from __future__ import annotations

import ast
import io
import keyword
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from trunkline.tasks.swe.syntax import parse

_GROUPS: tuple[tuple[str, ...], ...] = (
    ("<", "<=", ">", ">=", "==", "!="),
    ("+", "-", "*", "//", "%"),
    ("+=", "-=", "="),
    ("and", "or"),
    ("is", "=="),
    ("True", "False"),
    ("min", "max"),
    ("any", "all"),
    ("break", "continue"),
    ("append", "extend"),
    ("range", "len"),
    ("list", "set", "tuple"),
)


@dataclass(frozen=True)
class Slip:
    """One line as it is right and with a slip."""

    line: int
    """Its number in the file."""
    right: str
    """As its author wrote it."""
    wrong: str
    """With one token that is another."""


def find_slips(source: str, name: str) -> list[Slip]:
    """Slips in the body of the function `name`, in the order of the file; those that no longer parse are left out."""
    tree = parse(source)
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    first, last = function.body[0].lineno, function.end_lineno or function.lineno
    names = sorted({node.id for node in ast.walk(function) if isinstance(node, ast.Name)} & _own_names(function))
    lines = source.splitlines()
    found: dict[Slip, None] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, start = token.start
        if first <= row <= last and token.end[0] == row:
            for other in _others(token, names):
                line = lines[row - 1]
                wrong = line[:start] + other + line[token.end[1] :]
                if _parses([*lines[: row - 1], wrong, *lines[row:]]):
                    found[Slip(row, line, wrong)] = None
    return list(found)


def _own_names(function: ast.FunctionDef) -> set[str]:
    """Arguments and variables."""
    stored = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return stored | {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}


def _others(token: tokenize.TokenInfo, names: list[str]) -> Iterator[str]:
    if token.type == tokenize.NUMBER and token.string.isdigit():
        yield from (str(other) for other in (int(token.string) - 1, int(token.string) + 1) if other >= 0)
        return
    if token.type not in (tokenize.NAME, tokenize.OP):
        return
    for group in _GROUPS:
        if token.string in group:
            yield from (other for other in group if other != token.string)
    if token.type == tokenize.NAME and not keyword.iskeyword(token.string) and token.string in names:
        yield from (other for other in names if other != token.string)


def _parses(lines: list[str]) -> bool:
    try:
        parse("\n".join(lines))
    except SyntaxError:
        return False
    return True
