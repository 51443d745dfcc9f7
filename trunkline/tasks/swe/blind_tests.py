"""Tests whose expectations are taken out: they run the same code and tell what they see. Owns rewriting; blind_checks.py compares.

    assert parse("a=1") == {"a": 1}                 ─►  see(0, parse("a=1"))      the host: equal to what the solution makes it see
    assert "usage" in run().output                  ─►  see(1, run().output)      the host: contains "usage"
    with pytest.raises(KeyError, match="no"): f()   ─►  with raising(2): f()      the host: of the same kind, and matches "no"

What is taken out never enters the process that runs the tests: whoever makes everything pass has nothing to report. So it protects tests
whose changed copies do not hide what is true (sheets.py). Names, columns of tables and docstrings that only the expectations needed go,
too. What is expected and stays there all the same under some name (a fixture, an attribute, an input) is marked: it hides nothing.
"""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trunkline.tasks.swe.blind_checks import BlindFile, Check
from trunkline.tasks.swe.expectations import MADE, Function, Origins, Reader, loaded, name_of, parameter_names
from trunkline.tasks.swe.programs.observer import plain
from trunkline.tasks.swe.sheets import function_of
from trunkline.tasks.swe.syntax import parse

MODULE = "trunkline_observer"
_SEE, _RAISING, _WARNING = "_trunkline_see", "_trunkline_raising", "_trunkline_warning"
EQUALITIES = frozenset({"assertEqual", "assertEquals", "assertListEqual", "assertTupleEqual", "assertDictEqual", "assertSetEqual"}) | {
    "assertSequenceEqual",
    "assertMultiLineEqual",
}
_RAISES = frozenset({"raises", "assertRaises", "assertRaisesRegex", "assertRaisesRegexp"})
_WARNS = frozenset({"warns", "deprecated_call", "assertWarns", "assertWarnsRegex"})
_APPROXIMATE = "approx"


def blind_files(sources: Mapping[str, str], tests: Collection[str]) -> dict[str, BlindFile]:
    """The files of these tests, as pytest names them, each with these tests alone; without those in which nothing can be seen."""
    found: dict[str, BlindFile] = {}
    for path in sorted({test.partition("::")[0] for test in tests}):
        functions = {function_of(test).partition("::")[2] for test in tests if test.startswith(f"{path}::")}
        file = blind_file(sources[path], frozenset(functions))
        if file is not None:
            found[path] = file
    return found


@functools.lru_cache(maxsize=64)
def blind_file(source: str, functions: frozenset[str]) -> BlindFile | None:
    """The file with these functions alone ('test_a', 'TestB::test_c'), blind; None if nothing in them can be seen, or it cannot be read."""
    try:
        module = parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    _leave_only(module, functions)
    checks: list[Check] = []
    blinded = [_Blinding.of(module, function, checks) for function in _functions(module, functions)]
    if not checks:
        return None
    gone = _forget_constants(module, {name for one in blinded for name in one.expected_names()})
    for one in blinded:
        one.mark_open(gone)
    names = [ast.alias("see", _SEE), ast.alias("raising", _RAISING), ast.alias("warning", _WARNING)]
    literals = frozenset(_literals([module]))
    module.body.insert(_after_docstring(module), ast.ImportFrom(MODULE, names, 0))
    return BlindFile(ast.unparse(ast.fix_missing_locations(module)) + "\n", tuple(checks), literals)


@dataclass
class _Blinding(ast.NodeTransformer):
    """Rewrites the asserts of one function."""

    function: Function
    origins: Origins
    checks: list[Check]
    """Of the whole file."""
    expected: dict[int, list[ast.expr]] = field(default_factory=dict)
    """By place, what was taken out there."""
    gone: dict[str, ast.expr | None] = field(default_factory=dict)
    """Names that only this needed."""

    @classmethod
    def of(cls, module: ast.Module, function: Function, checks: list[Check]) -> _Blinding:
        """Rewrites it in place."""
        if len(function.body) > 1 and ast.get_docstring(function, clean=False) is not None:
            del function.body[0]  # it may say what is expected
        blinding = cls(function, Origins.of(module, function), checks)
        blinding.visit(function)
        blinding.gone = _forget_unused(function, blinding.origins, blinding.expected_names())
        return blinding

    def expected_names(self) -> set[str]:
        """What was taken out speaks of them."""
        return loaded([node for nodes in self.expected.values() for node in nodes])

    def mark_open(self, gone: Mapping[str, ast.expr]) -> None:
        """Checks whose expectation can be read all the same; `gone` are constants of the module that are not there any more."""
        reader = Reader(self.origins, {**gone, **self.gone})
        for place, nodes in self.expected.items():
            if any(reader.is_readable(node) for node in nodes):
                self.checks[place] = replace(self.checks[place], is_open=True)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """`assert a == b`, `assert "words" in a`; others stay."""
        test = node.test
        if not (isinstance(test, ast.Compare) and len(test.ops) == 1):
            return node
        left, right = test.left, test.comparators[0]
        if isinstance(test.ops[0], ast.Eq):
            return self._equal(node, left, right)
        return self._within(node, left, right) if isinstance(test.ops[0], ast.In) else node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """`self.assertEqual(a, b)`, `self.assertIn(a, b)`, `self.assertRaises(E, f, x)`."""
        call = node.value
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            return self.generic_visit(node)
        name, arguments = call.func.attr, call.args
        if len(arguments) < 2 or any(isinstance(argument, ast.Starred) for argument in arguments[:2]):
            return node
        if name in EQUALITIES:
            return self._equal(node, arguments[0], arguments[1])
        if name == "assertIn":
            return self._within(node, arguments[0], arguments[1])
        if name == "assertRaises":
            ran = ast.Expr(ast.Call(arguments[1], arguments[2:], call.keywords))
            return ast.copy_location(ast.With([ast.withitem(self._call(_RAISING, Check("raises")))], [ran]), node)
        return node

    def visit_With(self, node: ast.With) -> ast.AST:
        """`with pytest.raises(E, match=...): ...`"""
        self.generic_visit(node)
        for item in node.items:
            call = item.context_expr
            if isinstance(call, ast.Call) and name_of(call.func) in _RAISES:
                item.context_expr = self._call(_RAISING, Check("raises", _pattern_of(call)))
            elif isinstance(call, ast.Call) and name_of(call.func) in _WARNS:
                item.context_expr = self._call(_WARNING, Check("warns", _pattern_of(call)))
        return node

    def _equal(self, node: ast.stmt, left: ast.expr, right: ast.expr) -> ast.AST:
        if _is_approximate(left) or _is_approximate(right):
            return node
        rank = self.origins.rank
        is_turned = not _is_literal(right) and (_is_literal(left) or rank(right) > rank(left))
        actual, expected = (right, left) if is_turned else (left, right)
        self.expected[len(self.checks)] = [expected]
        return ast.copy_location(ast.Expr(self._call(_SEE, Check("equal", is_open=rank(actual) < MADE), actual)), node)

    def _within(self, node: ast.stmt, item: ast.expr, actual: ast.expr) -> ast.AST:
        if not _is_literal(item) or _is_literal(actual):
            return node
        check = Check("contains", json.dumps(plain(_literal_of(item))), is_open=self.origins.rank(actual) < MADE)
        return ast.copy_location(ast.Expr(self._call(_SEE, check, actual)), node)

    def _call(self, name: str, check: Check, *arguments: ast.expr) -> ast.Call:
        self.checks.append(check)
        return ast.Call(ast.Name(name, ast.Load()), [ast.Constant(len(self.checks) - 1), *arguments], [])


def _pattern_of(call: ast.Call) -> str:
    """What the message of an exception must match; '' if that is not said by a constant."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "match"]
    if "Regex" in name_of(call.func):
        given += call.args[1:2]
    found = [node.value for node in given if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return found[0] if found else ""


def _leave_only(module: ast.Module, wanted: frozenset[str]) -> None:
    """Other tests of the module and of its classes are not run."""
    for body, prefix in _bodies(module):
        kept = [node for node in body if not (_is_test(node) and f"{prefix}{_name(node)}" not in wanted)]
        body[:] = kept or [ast.Pass()]


def _functions(module: ast.Module, wanted: frozenset[str]) -> Iterator[Function]:
    for body, prefix in _bodies(module):
        for node in body:
            if isinstance(node, Function) and f"{prefix}{node.name}" in wanted:
                yield node


def _bodies(module: ast.Module) -> Iterator[tuple[list[ast.stmt], str]]:
    """Where tests are defined, and what stands before their names."""
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    yield module.body, ""
    for node in classes:
        yield node.body, f"{node.name}::"


def _is_test(node: ast.stmt) -> bool:
    return isinstance(node, Function) and node.name.startswith("test")


def _name(node: ast.stmt) -> str:
    return node.name if isinstance(node, Function) else ""


def _forget_unused(function: Function, origins: Origins, expected: Collection[str]) -> dict[str, ast.expr | None]:
    """Expectations that had a name: columns of tables, constants that nothing uses any more, and what else was only expected."""
    gone: dict[str, ast.expr | None] = {}
    while more := _forget_assigned(function, origins, {*expected, *loaded([one for one in gone.values() if one is not None])}):
        gone |= more
    used = loaded([function])
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and name_of(decorator.func) == "parametrize" and len(decorator.args) >= 2:
            gone |= dict.fromkeys(_blanked(parameter_names(decorator.args[0]), decorator.args[1], used))
    for node in ast.walk(function):
        if isinstance(node, ast.For) and isinstance(node.target, ast.Tuple | ast.List):
            names = [one.id for one in node.target.elts if isinstance(one, ast.Name)]
            if len(names) == len(node.target.elts) and origins.rank(node.iter) < MADE:
                gone |= dict.fromkeys(_blanked(names, node.iter, used))
    return gone


def _forget_assigned(function: Function, origins: Origins, expected: Collection[str]) -> dict[str, ast.expr]:
    """Removes what gives a name that nothing uses to a literal, or to a value of the test's own that was only expected."""
    used, gone = loaded([function]), {}
    for node in (node for node in ast.walk(function) if not isinstance(node, ast.ClassDef)):
        for body in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
            for statement in body if isinstance(body, list) else []:
                name, value = _given(statement)
                if name and name not in used and (_is_literal(value) or (name in expected and origins.rank(value) < MADE)):
                    gone[name] = value
            if isinstance(body, list) and any(_given(one)[1] in gone.values() for one in body):
                body[:] = [one for one in body if _given(one)[1] not in gone.values()] or [ast.Pass()]
    return gone


def _forget_constants(module: ast.Module, expected: Collection[str]) -> dict[str, ast.expr]:
    """Removes constants of the module that were only expected."""
    used, gone = loaded([module]), {}
    for statement in module.body:
        name, value = _given(statement)
        if name in expected and name not in used and _is_literal(value):
            gone[name] = value
    module.body[:] = [one for one in module.body if _given(one)[1] not in gone.values()]
    return gone


def _given(statement: ast.stmt) -> tuple[str, ast.expr]:
    """Name and value of `name = value`; ('', ...) of another statement."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id, statement.value
    return "", _NOTHING


_NOTHING = ast.Constant(None)


def _blanked(names: list[str], table: ast.expr, used: Collection[str]) -> Iterator[str]:
    """The columns of a table that nothing uses, emptied; () if it is not written out row by row."""
    if len(names) < 2 or not isinstance(table, ast.List | ast.Tuple):
        return
    rows = [row.args if isinstance(row, ast.Call) else row.elts if isinstance(row, ast.Tuple | ast.List) else [] for row in table.elts]
    if any(len(row) != len(names) or any(isinstance(cell, ast.Starred) for cell in row) for row in rows):
        return
    for row in rows:
        row[:] = [cell if name in used else ast.Constant(None) for name, cell in zip(names, row, strict=True)]
    yield from (name for name in names if name not in used)


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
    return any(isinstance(part, ast.Call) and name_of(part.func) == _APPROXIMATE for part in ast.walk(node))


def _after_docstring(module: ast.Module) -> int:
    """Where an import may stand: behind the docstring and what is imported from __future__."""
    place = 0
    for place, node in enumerate(module.body):
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if not (is_docstring or (isinstance(node, ast.ImportFrom) and node.module == "__future__")):
            return place
    return place + 1 if module.body else 0
