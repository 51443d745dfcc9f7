"""Tests whose expectations are taken out: they run the same code and tell what they see. Owns rewriting and comparing, no run.

    assert parse("a=1") == {"a": 1}                 ─►  see(0, parse("a=1"))      the host: equal to what the solution makes it see
    assert "usage" in run().output                  ─►  see(1, run().output)      the host: contains "usage"
    with pytest.raises(KeyError, match="no"): f()   ─►  with raising(2): f()      the host: of the same kind, and matches "no"

What is taken out never enters the process that runs the tests: whoever makes everything pass has nothing to report. So it protects tests
whose changed copies do not hide what is true (sheets.py). An answer that can be guessed, or that stands in what is left of the test,
protects nothing: `hidden_answers` says which do.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trunkline.tasks.swe.outcomes import TestRun
from trunkline.tasks.swe.programs.observer import plain
from trunkline.tasks.swe.sheets import function_of
from trunkline.tasks.swe.syntax import parse

MODULE = "trunkline_observer"
_SEE, _RAISING, _WARNING = "_trunkline_see", "_trunkline_raising", "_trunkline_warning"
_EQUAL = frozenset({"assertEqual", "assertEquals", "assertListEqual", "assertTupleEqual", "assertDictEqual", "assertSetEqual"}) | {
    "assertSequenceEqual",
    "assertMultiLineEqual",
}
_RAISES = frozenset({"raises", "assertRaises", "assertRaisesRegex", "assertRaisesRegexp"})
_WARNS = frozenset({"warns", "deprecated_call", "assertWarns", "assertWarnsRegex"})
_APPROXIMATE = "approx"
_SHORTEST = 4
"""Letters of words that nobody says by chance."""
_FEW = frozenset(json.dumps(value) for value in (None, True, False, -1, 0, 1, "", ["list", []], ["tuple", []], ["dict", []], ["set", []]))


@dataclass(frozen=True)
class Check:
    """What the host asks of one place. `Check("contains", '"usage"')`."""

    kind: Literal["equal", "contains", "raises", "warns"]
    """equal: to what the solution makes it see; contains: these words, or this item; raises, warns: of its kinds, and one says this."""
    taken_out: str = ""
    """The item as JSON, or the pattern; '' for equal, and where nothing is asked but the kind."""


@dataclass(frozen=True)
class BlindFile:
    """A test file without expectations."""

    text: str
    """What is run."""
    checks: tuple[Check, ...]
    """By place."""
    literals: frozenset[str]
    """The constants that are left in its blind tests, as JSON: no secret."""


def blind_files(sources: Mapping[str, str], tests: Collection[str]) -> dict[str, BlindFile]:
    """The files of these tests, as pytest names them, each with these tests alone; without those in which nothing can be seen."""
    found: dict[str, BlindFile] = {}
    for path in sorted({test.partition("::")[0] for test in tests}):
        functions = {function_of(test).partition("::")[2] for test in tests if test.startswith(f"{path}::")}
        file = blind_file(sources[path], functions)
        if file is not None:
            found[path] = file
    return found


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
    if not blinding.checks:
        return None
    names = [ast.alias("see", _SEE), ast.alias("raising", _RAISING), ast.alias("warning", _WARNING)]
    module.body.insert(_after_docstring(module), ast.ImportFrom(MODULE, names, 0))
    return BlindFile(ast.unparse(ast.fix_missing_locations(module)) + "\n", tuple(blinding.checks), frozenset(literals))


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


def hidden_answers(file: BlindFile, seen: Sequence[str], before: Sequence[str]) -> list[str]:
    """Of what a test sees with the solution, what nobody knows without it.

    That is: what it did not see before the change, is no frequent value, and does not stand in what is left of the test.
    """
    return [line for line in seen if not any(_is_right(other, line, file.checks) for other in before) and _is_secret(line, file)]


def _is_right(told: str, line: str, checks: Sequence[Check]) -> bool:
    """Whether what is told answers as the solution's line, or in another way that the test lets pass."""
    (place, value), (of_solution, expected) = json.loads(told), json.loads(line)
    if place != of_solution or not 0 <= place < len(checks):
        return False
    check = checks[place]
    if check.kind == "equal":
        return told == line
    if check.kind == "contains":
        return _contains(value, json.loads(check.taken_out))
    told_of, of_it = _told_of(value), _told_of(expected)
    return bool(of_it) and {kind for kind, _ in of_it} <= {kind for kind, _ in told_of} and _one_says(told_of, check.taken_out)


def _is_secret(line: str, file: BlindFile) -> bool:
    place, value = json.loads(line)
    check = file.checks[place]
    if check.kind == "contains":
        return len(check.taken_out) > _SHORTEST and not any(
            _contains(json.loads(one), json.loads(check.taken_out)) for one in file.literals
        )
    if check.kind in ("raises", "warns"):
        return True
    if isinstance(value, list) and value and value[0] in ("other", "large"):
        return False
    return json.dumps(value) not in _FEW and json.dumps(value) not in file.literals


def _contains(value: Any, item: Any) -> bool:
    if isinstance(value, str):
        return isinstance(item, str) and item in value
    if isinstance(value, list) and len(value) == 2 and value[0] in ("list", "tuple", "set"):
        return item in value[1]
    if isinstance(value, list) and len(value) == 2 and value[0] == "dict":
        return any(key == item for key, _ in value[1])
    return False


def _told_of(value: Any) -> list[tuple[str, str]]:
    """Exceptions and warnings: kind and message."""
    if isinstance(value, list) and len(value) == 3 and value[0] == "raised":
        return [(str(value[1]), str(value[2]))]
    if isinstance(value, list) and len(value) == 2 and value[0] == "warned" and isinstance(value[1], list):
        return [(str(one[0]), str(one[1])) for one in value[1] if isinstance(one, list) and len(one) == 2]
    return []


def _one_says(told_of: Sequence[tuple[str, str]], pattern: str) -> bool:
    try:
        return any(re.search(pattern, message) for _, message in told_of)
    except re.error:
        return False


class _Blinding(ast.NodeTransformer):
    """Rewrites the asserts of one function after another."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

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
        if name in _EQUAL:
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
            if isinstance(call, ast.Call) and _name_of(call.func) in _RAISES:
                item.context_expr = self._call(_RAISING, Check("raises", _pattern_of(call)))
            elif isinstance(call, ast.Call) and _name_of(call.func) in _WARNS:
                item.context_expr = self._call(_WARNING, Check("warns", _pattern_of(call)))
        return node

    def _equal(self, node: ast.stmt, left: ast.expr, right: ast.expr) -> ast.AST:
        if _is_approximate(left) or _is_approximate(right):
            return node
        actual = right if _is_literal(left) and not _is_literal(right) else left
        return ast.copy_location(ast.Expr(self._call(_SEE, Check("equal"), actual)), node)

    def _within(self, node: ast.stmt, item: ast.expr, actual: ast.expr) -> ast.AST:
        if not _is_literal(item) or _is_literal(actual):
            return node
        check = Check("contains", json.dumps(plain(_literal_of(item))))
        return ast.copy_location(ast.Expr(self._call(_SEE, check, actual)), node)

    def _call(self, name: str, check: Check, *arguments: ast.expr) -> ast.Call:
        self.checks.append(check)
        return ast.Call(ast.Name(name, ast.Load()), [ast.Constant(len(self.checks) - 1), *arguments], [])


def _pattern_of(call: ast.Call) -> str:
    """What the message of an exception must match; '' if that is not said by a constant."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "match"]
    if "Regex" in _name_of(call.func):
        given += call.args[1:2]
    found = [node.value for node in given if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return found[0] if found else ""


_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _leave_only(module: ast.Module, wanted: frozenset[str]) -> None:
    """Other tests of the module and of its classes are not run."""
    for body, prefix in _bodies(module):
        kept = [node for node in body if not (_is_test(node) and f"{prefix}{_name(node)}" not in wanted)]
        body[:] = kept or [ast.Pass()]


def _functions(module: ast.Module, wanted: frozenset[str]) -> Iterator[_Function]:
    for body, prefix in _bodies(module):
        for node in body:
            if isinstance(node, _Function) and f"{prefix}{node.name}" in wanted:
                yield node


def _bodies(module: ast.Module) -> Iterator[tuple[list[ast.stmt], str]]:
    """Where tests are defined, and what stands before their names."""
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    yield module.body, ""
    for node in classes:
        yield node.body, f"{node.name}::"


def _is_test(node: ast.stmt) -> bool:
    return isinstance(node, _Function) and node.name.startswith("test")


def _name(node: ast.stmt) -> str:
    return node.name if isinstance(node, _Function) else ""


def _forget_unused(function: _Function) -> None:
    """Expectations that had a name: columns of parameters and constants that nothing uses any more."""
    used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and _name_of(decorator.func) == "parametrize" and len(decorator.args) >= 2:
            _blank_columns(decorator, used)
    for node in (node for node in ast.walk(function) if not isinstance(node, ast.ClassDef)):
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
