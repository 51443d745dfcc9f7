"""Tests whose expectations are taken out: they run the same code and tell what they see. Owns the rewriting; compares nothing.

    assert parse("a=1") == {"a": 1}      ─►  see(0, parse("a=1"))
    with pytest.raises(KeyError): f(x)   ─►  with raising(1): f(x)

The host knows what the solution makes them see, and the process that runs them does not: whoever makes everything pass has nothing to
report. So it protects tests whose changed copies do not hide what is true (sheets.py). An answer that can be guessed, or that stands
in what is left of the test, protects nothing: `hidden_answers` says which do.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.tasks.swe.programs.observer import plain
from trunkline.tasks.swe.syntax import parse

MODULE = "trunkline_observer"
_SEE, _RAISING = "__trunkline_see", "__trunkline_raising"
_EQUAL = frozenset({"assertEqual", "assertEquals", "assertListEqual", "assertTupleEqual", "assertDictEqual", "assertSetEqual"})
_EQUAL_MORE = frozenset({"assertSequenceEqual", "assertMultiLineEqual"})
_RAISES = frozenset({"raises", "assertRaises", "assertRaisesRegex", "assertRaisesRegexp"})
_APPROXIMATE = "approx"
_FEW = frozenset(json.dumps(value) for value in (None, True, False, -1, 0, 1, "", ["list", []], ["tuple", []], ["dict", []], ["set", []]))


@dataclass(frozen=True)
class BlindFile:
    """A test file without expectations."""

    text: str
    """What is run."""
    literals: frozenset[str]
    """The constants that are left in its blind tests, as JSON: no secret."""


def blind_file(source: str, functions: Collection[str]) -> BlindFile | None:
    """The file with these functions alone ('test_a', 'TestB::test_c'), blind; None if nothing in them can be seen, or it cannot be read."""
    try:
        module = parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    _leave_only(module, frozenset(functions))
    blinding, literals = _Blinding(), set(_literals(_assigned(module)))
    for function in _functions(module, frozenset(functions)):
        blinding.visit(function)
        _forget_unused(function)
        literals |= set(_literals([function]))
    if not blinding.num_places:
        return None
    names = [ast.alias("see", _SEE), ast.alias("raising", _RAISING)]
    module.body.insert(_after_docstring(module), ast.ImportFrom(MODULE, names, 0))
    return BlindFile(ast.unparse(ast.fix_missing_locations(module)) + "\n", frozenset(literals))


def hidden_answers(seen: Sequence[str], before: Collection[str], literals: Collection[str]) -> list[str]:
    """What a test sees with the solution and nobody knows without it: not seen before the change, no frequent value, not in the test."""
    return [line for line in seen if line not in before and _value(line) not in _FEW and _value(line) not in literals and _is_plain(line)]


def _value(line: str) -> str:
    return json.dumps(json.loads(line)[1])


def _is_plain(line: str) -> bool:
    value = json.loads(line)[1]
    return not (isinstance(value, list) and value and value[0] in ("other", "large", "nothing raised"))


class _Blinding(ast.NodeTransformer):
    """Rewrites the asserts of one function after another."""

    def __init__(self) -> None:
        self.num_places = 0

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """`assert a == b`; others stay."""
        test = node.test
        if not (isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq)):
            return node
        return self._seen(node, test.left, test.comparators[0])

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """`self.assertEqual(a, b)`, `self.assertRaises(E, f, x)`."""
        call = node.value
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            return self.generic_visit(node)
        name, arguments = call.func.attr, call.args
        if any(isinstance(argument, ast.Starred) for argument in arguments[:2]):
            return node
        if name in _EQUAL | _EQUAL_MORE and len(arguments) >= 2:
            return self._seen(node, arguments[0], arguments[1])
        if name == "assertRaises" and len(arguments) >= 2:
            ran = ast.Expr(ast.Call(arguments[1], arguments[2:], call.keywords))
            return ast.copy_location(ast.With([ast.withitem(self._call(_RAISING))], [ran]), node)
        return node

    def visit_With(self, node: ast.With) -> ast.AST:
        """`with pytest.raises(E): ...`"""
        self.generic_visit(node)
        for item in node.items:
            call = item.context_expr
            if isinstance(call, ast.Call) and _name_of(call.func) in _RAISES:
                item.context_expr = self._call(_RAISING)
        return node

    def _seen(self, node: ast.stmt, left: ast.expr, right: ast.expr) -> ast.AST:
        if _is_approximate(left) or _is_approximate(right):
            return node
        actual = right if _is_literal(left) and not _is_literal(right) else left
        return ast.copy_location(ast.Expr(self._call(_SEE, actual)), node)

    def _call(self, name: str, *arguments: ast.expr) -> ast.Call:
        self.num_places += 1
        return ast.Call(ast.Name(name, ast.Load()), [ast.Constant(self.num_places - 1), *arguments], [])


def _leave_only(module: ast.Module, wanted: frozenset[str]) -> None:
    """Other tests of the module and of its classes are not run."""
    for owner, prefix in [(module, ""), *((node, f"{node.name}::") for node in module.body if isinstance(node, ast.ClassDef))]:
        kept = [node for node in owner.body if not _is_other_test(node, prefix, wanted)]
        owner.body[:] = kept or [ast.Pass()]


def _is_other_test(node: ast.stmt, prefix: str, wanted: frozenset[str]) -> bool:
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return is_function and node.name.startswith("test") and f"{prefix}{node.name}" not in wanted


def _functions(module: ast.Module, wanted: frozenset[str]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for owner, prefix in [(module, ""), *((node, f"{node.name}::") for node in module.body if isinstance(node, ast.ClassDef))]:
        for node in owner.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and f"{prefix}{node.name}" in wanted:
                yield node


def _forget_unused(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Expectations that had a name: columns of parameters and constants that nothing uses any more."""
    used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and _name_of(decorator.func) == "parametrize" and len(decorator.args) >= 2:
            _blank_columns(decorator, used)
    for node in ast.walk(function):
        for body in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
            if isinstance(body, list) and any(_is_unused(statement, used) for statement in body):
                body[:] = [statement for statement in body if not _is_unused(statement, used)] or [ast.Pass()]


def _is_unused(statement: ast.stmt, used: Collection[str]) -> bool:
    if not (isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name)):
        return False
    return statement.targets[0].id not in used and _is_literal(statement.value)


def _blank_columns(decorator: ast.Call, used: Collection[str]) -> None:
    names = _parameter_names(decorator.args[0])
    if len(names) < 2 or not isinstance(decorator.args[1], ast.List | ast.Tuple):
        return
    for row in decorator.args[1].elts:
        cells = row.args if isinstance(row, ast.Call) else row.elts if isinstance(row, ast.Tuple | ast.List) else []
        if len(cells) == len(names):
            cells[:] = [cell if name in used else ast.Constant(None) for name, cell in zip(names, cells, strict=True)]


def _parameter_names(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [name.strip() for name in node.value.split(",") if name.strip()]
    if isinstance(node, ast.List | ast.Tuple):
        names = [cell.value for cell in node.elts if isinstance(cell, ast.Constant) and isinstance(cell.value, str)]
        return names if len(names) == len(node.elts) else []
    return []


def _assigned(module: ast.Module) -> Iterator[ast.AST]:
    """Values of the module's own constants, which a test may be compared with."""
    for node in module.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            yield node.value


def _literals(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for root in nodes:
        for node in ast.walk(root):
            if isinstance(node, ast.expr) and _is_literal(node):
                yield json.dumps(plain(_literal_of(node)))


def _literal_of(node: ast.expr) -> Any:
    return ast.literal_eval(node)


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _is_approximate(node: ast.expr) -> bool:
    return any(isinstance(part, ast.Call) and _name_of(part.func) == _APPROXIMATE for part in ast.walk(node))


def _name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _after_docstring(module: ast.Module) -> int:
    """Where an import may stand: behind the docstring and what is imported from __future__."""
    place = 0
    for place, node in enumerate(module.body):
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if not (is_docstring or (isinstance(node, ast.ImportFrom) and node.module == "__future__")):
            return place
    return place + 1 if module.body else 0
