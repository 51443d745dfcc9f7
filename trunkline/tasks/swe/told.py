"""What an agent reads of the answers that its tests expect: in the instruction, and in tests of its workspace. Owns the reading alone.

An answer that is told can be written down, and who knows it knows the true one among changed copies of its test.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trunkline.tasks.swe.perturb import Probe, find_function
from trunkline.tasks.swe.programs.observer import plain
from trunkline.tasks.swe.sites import find_sites, last_name
from trunkline.tasks.swe.syntax import parse, parse_expression

_SHORTEST = 5
"""Letters of words that do not stand in a text by chance."""
_SHORTEST_NUMBER = 3
"""Digits of a number that does not stand in prose by chance; in code any number is meant."""
_CODE = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)|`([^`\n]+)`", re.DOTALL)
_NUMBER = r"(?<![\w.])\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w])"
_TEXT = r"[bB]?(?:'''.*?'''|\"\"\".*?\"\"\"|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\")"
_ATOMS = (ast.Constant, ast.Name, ast.UnaryOp)
_BETWEEN = (ast.UnaryOp, ast.Starred, ast.keyword)
_LITERAL = re.compile(rf"{_TEXT}|{_NUMBER}", re.DOTALL)


@dataclass(frozen=True)
class Told:
    """An instruction, as one who looks for answers reads it. `Told("It gives `[81, 42]`.").tells(42)`."""

    instruction: str
    """Markdown."""

    def tells(self, value: Any) -> bool:
        """Whether a number or text stands there: in code as a literal, in prose if that is no accident. Anything else is not told."""
        if isinstance(value, bool) or not isinstance(value, str | bytes | int | float):
            return False
        if value in self._literals:
            return True
        if isinstance(value, int | float):
            return abs(value) in self._literals or str(abs(value)) in self._long_numbers
        return isinstance(value, str) and len(value.strip()) >= _SHORTEST and any(value.strip() in text for text in self._texts)

    def tells_whole(self, value: Any) -> bool:
        """Whether a collection, as observer.plain makes it, stands there in code as it is."""
        return json.dumps(value) in self._collections

    def says(self, pattern: str) -> bool:
        """Whether words that a test looks for with a regular expression are there."""
        try:
            return any(re.search(pattern, text) for text in self._texts)
        except re.error:
            return False

    def quotes(self, code: str) -> bool:
        """Whether a statement or an expression, as ast.unparse writes it, stands there in code."""
        return code in self._code

    @cached_property
    def _fragments(self) -> tuple[str, ...]:
        return tuple("".join(groups) for groups in _CODE.findall(self.instruction))

    @cached_property
    def _nodes(self) -> tuple[ast.AST, ...]:
        return tuple(node for text in self._fragments for tree in _parsed(text) for node in ast.walk(tree))

    @cached_property
    def _literals(self) -> frozenset[Any]:
        return frozenset(value for text in self._fragments for value in _values(text))

    @cached_property
    def _collections(self) -> frozenset[str]:
        found = (_evaluated(node) for node in self._nodes if isinstance(node, ast.List | ast.Tuple | ast.Dict | ast.Set))
        return frozenset(json.dumps(plain(value)) for value in found if value is not None)

    @cached_property
    def _code(self) -> frozenset[str]:
        return frozenset(
            ast.unparse(node) for node in self._nodes if isinstance(node, ast.stmt | ast.expr) and not isinstance(node, _ATOMS)
        )

    @cached_property
    def _long_numbers(self) -> frozenset[str]:
        return frozenset(found for found in re.findall(_NUMBER, self.instruction) if len(found) >= _SHORTEST_NUMBER)

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        return (self.instruction, *(value for value in self._literals if isinstance(value, str)))


NOTHING_TOLD = Told("")


def shows_true_value(probes: Sequence[Probe], source: str, told: Told) -> bool:
    """Whether what is true at one of the places at which a test's copies differ is told; `source` is the test file.

    That is so where the instruction quotes what the constant is directly in (`[1, 2]`, `f(3)`, `f(x) == 2`), or has the constant and that
    is no accident.
    """
    function = find_function(source, probes[0].qualname)
    if function is None:
        return False
    sites = find_sites(function)
    around = {id(child): node for node in ast.walk(function) for child in ast.iter_child_nodes(node)}
    return any(_is_told(sites[number].slot.node, around, told) for number in {probe.site for probe in probes} if number < len(sites))


def _is_told(node: object, around: Mapping[int, ast.AST], told: Told) -> bool:
    if not isinstance(node, ast.Constant):
        return False
    value = node.value
    if len(str(value)) >= (_SHORTEST if isinstance(value, str | bytes) else _SHORTEST_NUMBER) and told.tells(value):
        return True
    outer = around[id(node)]
    while isinstance(outer, _BETWEEN):
        outer = around[id(outer)]
    if isinstance(outer, ast.Call) and last_name(outer.func).startswith("assert") and len(outer.args) > 1:
        outer = ast.Compare(outer.args[0], [ast.Eq()], [outer.args[1]])
    return told.quotes(ast.unparse(outer))


def stands_in_workspace(function: str, sources: Mapping[str, str], visible: Mapping[str, str]) -> bool:
    """Whether a judged function ('file::qualname') stands the same in the file of the workspace; both by path in the workspace."""
    path, _, qualname = function.partition("::")
    hidden, shown = (find_function(texts.get(path, ""), qualname) for texts in (sources, visible))
    return hidden is not None and shown is not None and ast.dump(hidden) == ast.dump(shown)


def _parsed(code: str) -> Iterator[ast.AST]:
    """The whole, else its lines, as far as they are Python; a session of the interpreter is."""
    try:
        yield parse(textwrap.dedent(code))
        return
    except (SyntaxError, ValueError, RecursionError):
        lines = code.splitlines()
    for line in lines:
        try:
            yield parse(re.sub(r"^\s*(?:>>>|\.\.\.) ?", "", line).strip())
        except (SyntaxError, ValueError, RecursionError):
            continue


def _evaluated(node: ast.AST) -> Any:
    """None if it is no literal."""
    try:
        return ast.literal_eval(node)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


def _values(code: str) -> Iterator[str | bytes | int | float]:
    for literal in _LITERAL.findall(code):
        try:
            yield ast.literal_eval(parse_expression(literal))
        except (SyntaxError, ValueError):
            continue
