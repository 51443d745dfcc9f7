"""What an agent reads of the answers that its tests expect: in the instruction, and in tests of its workspace. Owns the reading alone.

An answer that is told can be written down, and who knows it knows the true one among changed copies of its test.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trunkline.tasks.swe.perturb import Probe, find_function
from trunkline.tasks.swe.sites import find_sites

_SHORTEST = 5
"""Letters of words that do not stand in a text by chance."""
_SHORTEST_NUMBER = 3
"""Digits of a number that does not stand in prose by chance; in code any number is meant."""
_CODE = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)|`([^`\n]+)`", re.DOTALL)
_NUMBER = r"(?<![\w.])\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w])"
_TEXT = r"[bB]?(?:'''.*?'''|\"\"\".*?\"\"\"|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\")"
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
        if isinstance(value, int | float):
            return abs(value) in self._literals or (len(str(abs(value))) >= _SHORTEST_NUMBER and str(abs(value)) in self._numbers)
        if value in self._literals:
            return True
        return isinstance(value, str) and len(value.strip()) >= _SHORTEST and any(value.strip() in text for text in self._texts)

    def says(self, pattern: str) -> bool:
        """Whether words that a test looks for with a regular expression are there."""
        try:
            return any(re.search(pattern, text) for text in self._texts)
        except re.error:
            return False

    @cached_property
    def _literals(self) -> frozenset[Any]:
        code = ("".join(groups) for groups in _CODE.findall(self.instruction))
        return frozenset(value for text in code for value in _values(text))

    @cached_property
    def _numbers(self) -> frozenset[str]:
        return frozenset(re.findall(_NUMBER, self.instruction))

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        return (self.instruction, *(value for value in self._literals if isinstance(value, str)))


NOTHING_TOLD = Told("")


def shows_true_value(probes: list[Probe], source: str, told: Told) -> bool:
    """Whether one of the places at which a test's copies differ holds a constant that is told; `source` is the test file."""
    function = find_function(source, probes[0].qualname)
    sites = find_sites(function) if function else []
    values = [sites[probe.site].slot.node for probe in probes if probe.site < len(sites)]
    return any(isinstance(node, ast.Constant) and told.tells(node.value) for node in values)


def stands_in_workspace(function: str, sources: Mapping[str, str], visible: Mapping[str, str]) -> bool:
    """Whether a judged function ('file::qualname') stands the same in the file of the workspace; both by path in the workspace."""
    path, _, qualname = function.partition("::")
    hidden, shown = (find_function(texts.get(path, ""), qualname) for texts in (sources, visible))
    return hidden is not None and shown is not None and ast.dump(hidden) == ast.dump(shown)


def _values(code: str) -> Iterator[str | bytes | int | float]:
    for literal in _LITERAL.findall(code):
        try:
            yield ast.literal_eval(literal)
        except (SyntaxError, ValueError):
            continue
