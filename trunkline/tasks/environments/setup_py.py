"""What a setup.py says to setup(), read from its text: literals, and what statements of the module make of them. Runs nothing of it."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

SAID = frozenset({"name", "python_requires", "install_requires", "tests_require", "extras_require"})
_NO_LITERAL = (ValueError, KeyError, TypeError, IndexError, RecursionError, MemoryError)


@dataclass
class SetupCall:
    """The call of setup()."""

    said: dict[str, Any] = field(default_factory=dict)
    """By keyword, what could be read."""
    computed: list[str] = field(default_factory=list)
    """Keywords that could not."""


def read_setup_call(text: str) -> SetupCall:
    """Raises SyntaxError, ValueError if it is no Python of ours."""
    module, found = ast.parse(text), SetupCall()
    names = _Names()
    for statement in _statements(module.body):
        with contextlib.suppress(*_NO_LITERAL):
            names.follow(statement)
    for keyword in [keyword for node in ast.walk(module) for keyword in _keywords_of_setup(node)]:
        try:
            found.said[str(keyword.arg)] = names.value(keyword.value)
        except _NO_LITERAL:
            found.computed.append(str(keyword.arg))
    return found


@dataclass
class _Names:
    """Variables of the module whose values are known."""

    values: dict[str, Any] = field(default_factory=dict)

    def follow(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            self._assign(statement.targets[0], self.value(statement.value))
        elif isinstance(statement, ast.AugAssign) and isinstance(statement.op, ast.Add):
            self._assign(statement.target, self.value(statement.target) + self.value(statement.value))
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            self._call(statement.value)

    def value(self, node: ast.expr) -> Any:
        """Raises one of _NO_LITERAL."""
        if isinstance(node, ast.Name):
            return self.values[node.id]
        if isinstance(node, ast.Subscript):
            return self.value(node.value)[self.value(node.slice)]
        if isinstance(node, ast.Dict):
            return {self.value(key): self.value(item) for key, item in zip(node.keys, node.values, strict=True) if key is not None}
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self.value(node.left) + self.value(node.right)
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return [self.value(item) for item in node.elts]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("list", "tuple", "set", "sorted", "dict"):
            return self._converted(node)
        return ast.literal_eval(node)

    def _converted(self, node: ast.Call) -> Any:
        own = {str(keyword.arg): self.value(keyword.value) for keyword in node.keywords}
        if isinstance(node.func, ast.Name) and node.func.id == "dict":
            return {**(self.value(node.args[0]) if node.args else {}), **own}
        return list(self.value(node.args[0])) if node.args else []

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.values[target.id] = value
        elif isinstance(target, ast.Subscript):
            self.value(target.value)[self.value(target.slice)] = value

    def _call(self, call: ast.Call) -> None:
        if isinstance(call.func, ast.Attribute) and len(call.args) == 1 and call.func.attr in ("append", "extend", "update"):
            owner, value = self.value(call.func.value), self.value(call.args[0])
            if isinstance(owner, list) and call.func.attr == "append":
                owner.append(value)
            elif isinstance(owner, list) and call.func.attr == "extend":
                owner.extend(value)
            elif isinstance(owner, dict) and call.func.attr == "update":
                owner.update(value)


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """In order, also those under conditions, which count as met."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.With | ast.Try):
            yield from _statements(statement.body)


def _keywords_of_setup(node: ast.AST) -> list[ast.keyword]:
    if not isinstance(node, ast.Call):
        return []
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return [keyword for keyword in node.keywords if keyword.arg in SAID] if called == "setup" else []
