"""Examples of what should hold, from tests that fail before a change: one assertion each, with what it needs. Owns no prose.

A part of the tests is shown, never all of one that asserts more: what is shown can be hard-coded.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from trunkline.tasks.factory.asked import find_function, needed
from trunkline.tasks.factory.changed import Texts
from trunkline.tasks.factory.definitions import parsed
from trunkline.tasks.swe.sites import last_name

_MOST_LINES = 14
_MOST_LINES_OF_HELPERS = 10
_MOST_CHARACTERS = 700
_MOST_WHOLE = 1500
"""Of a whole function, shown if no part of any can be."""
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_OPERATORS: dict[str, ast.cmpop] = {
    "assertEqual": ast.Eq(),
    "assertListEqual": ast.Eq(),
    "assertDictEqual": ast.Eq(),
    "assertTupleEqual": ast.Eq(),
    "assertSequenceEqual": ast.Eq(),
    "assertSetEqual": ast.Eq(),
    "assertNotEqual": ast.NotEq(),
    "assertIs": ast.Is(),
    "assertIsNot": ast.IsNot(),
    "assertIn": ast.In(),
    "assertNotIn": ast.NotIn(),
    "assertLess": ast.Lt(),
    "assertLessEqual": ast.LtE(),
    "assertGreater": ast.Gt(),
    "assertGreaterEqual": ast.GtE(),
}


def examples_of(texts: Texts, functions: Sequence[str], *, packages: Collection[str] = (), endings: Collection[str] = ()) -> list[str]:
    """At most one piece of code a test function, such as "assert median([1, 2]) == 1.5"; what cannot be shown short is left out.

    Args:
        texts: The test file as the workspace has it, and the hidden one. New claims are shown rather than those that stand there already.
        functions: That fail, as 'TestA::test_b'.
        packages: Of the project: an example uses them, or a fixture.
        endings: Parameters of tests that fail, as '[1-2]'.
    """
    tree = parsed(texts.after)
    if tree is None:
        return []
    page = _Page(tree, texts, frozenset(packages), frozenset(endings))
    found = [function for name in functions if (function := find_function(tree, name))]
    shown = [example for function in found if (example := _example(function, page))]
    return list(dict.fromkeys(shown)) or [text for function in found[:1] if len(text := ast.unparse(function)) <= _MOST_WHOLE]


@dataclass(frozen=True)
class _Page:
    tree: ast.Module
    texts: Texts
    packages: frozenset[str]
    endings: frozenset[str]

    @cached_property
    def old_lines(self) -> frozenset[str]:
        return frozenset(line.strip() for line in self.texts.before.splitlines())

    @cached_property
    def lines(self) -> list[str]:
        return self.texts.after.splitlines()

    def is_new(self, node: ast.stmt | ast.expr) -> bool:
        return any(line.strip() not in self.old_lines for line in self.lines[node.lineno - 1 : node.end_lineno])

    def own_names(self) -> set[str]:
        """Names by which the file knows parts of the project."""
        imports = [node for node in ast.walk(self.tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        return {name for node in imports for name, module in _imported(node) if module.split(".")[0] in self.packages}


def _example(function: _Function, page: _Page) -> str | None:
    claims = [node for node in function.body if _is_claim(node)]
    loops = [node for node in function.body if isinstance(node, ast.For | ast.With | ast.AsyncWith) and any(map(_is_claim, ast.walk(node)))]
    claims = claims or list(loops)
    tables = _parameters(function, page)
    fixtures = {argument.arg for argument in function.args.args} - {"self"} - _UNRELATED - _tabled(function, page.tree)
    unbound = _tabled(function, page.tree) - _bound_by(tables)
    own = page.own_names()
    for claim in sorted(claims, key=lambda node: not page.is_new(node)):
        before = function.body[: function.body.index(claim) + 1]
        for sliced in (_with_needs(claim, before, decorated=True), _with_needs(claim, before), before):
            used = set().union(*(_loaded(node) for node in sliced))
            if used & unbound or (page.packages and not used & (own | fixtures)):
                continue
            whole = [*(table for table in tables if _bound(table) & used), *sliced]
            for helpers in (_helpers(whole, page.tree), []):  # better without than not at all
                shown, most_lines = _shown(whole, helpers, page.tree), _MOST_LINES + (_MOST_LINES_OF_HELPERS if helpers else 0)
                if shown.count("\n") < most_lines and len(shown) <= _MOST_CHARACTERS:
                    return shown
    return None


def _shown(whole: Sequence[ast.stmt], helpers: Sequence[ast.stmt], tree: ast.Module) -> str:
    known = [*helpers, *whole]
    return "\n".join([*_imports(known, tree), *_constants(known, tree), *map(ast.unparse, helpers), *map(_plain, whole)])


def _tabled(function: _Function, tree: ast.Module) -> set[str]:
    """Names that come from tables of parameters, on the function, its class, or the module."""
    holders: list[ast.AST] = [*function.decorator_list]
    holders += [found for node in tree.body if isinstance(node, ast.ClassDef) and function in node.body for found in node.decorator_list]
    holders += [node for node in tree.body if isinstance(node, ast.Assign) and "pytestmark" in _bound(node)]
    calls = [found for holder in holders for found in ast.walk(holder) if isinstance(found, ast.Call)]
    return {name for call in calls if last_name(call.func) == "parametrize" and call.args for name in _names(call.args[0])}


def _bound_by(nodes: Sequence[ast.stmt]) -> set[str]:
    return set().union(*(_bound(node) for node in nodes))


def _is_claim(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        return True
    if isinstance(node, ast.With | ast.AsyncWith):
        calls = [item.context_expr for item in node.items]
        return any(isinstance(call, ast.Call) and last_name(call.func).lower().endswith(("raises", "warns", "regex")) for call in calls)
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and last_name(node.value.func).startswith("assert")


def _with_needs(claim: ast.stmt, before: Sequence[ast.stmt], *, decorated: bool = False) -> list[ast.stmt]:
    """The claim after those statements before it that give its names their values; `decorated`: and functions that are given to them."""
    kept, wanted = [claim], _loaded(claim)
    for node in reversed(before[:-1]):
        if not _is_claim(node) and wanted & (_bound(node) | _changed(node) | (_given_to(node) if decorated else set())):
            kept.append(node)
            if isinstance(node, ast.Assign) and all(isinstance(target, ast.Name | ast.Tuple) for target in node.targets):
                wanted -= _bound(node)  # what it was before does not matter
            wanted |= _loaded(node)
    return kept[::-1]


def _given_to(node: ast.stmt) -> set[str]:
    """What decorates a function: `@app.command()`."""
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else []
    return set().union(*map(_loaded, decorators))


def _loaded(node: ast.AST) -> set[str]:
    return {found.id for found in ast.walk(node) if isinstance(found, ast.Name) and isinstance(found.ctx, ast.Load)}


def _bound(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {name.asname or name.name for name in node.names}
    return {found.id for found in ast.walk(node) if isinstance(found, ast.Name) and isinstance(found.ctx, ast.Store)}


def _changed(node: ast.stmt) -> set[str]:
    """What a call that stands alone is made on: `items.append(1)`."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute):
        return _loaded(node.value.func.value)
    return set()


def _parameters(function: _Function, page: _Page) -> list[ast.stmt]:
    """An assignment for each table of parameters: of a row that fails, or is new, or the first."""
    found: list[ast.stmt] = []
    for decorator in function.decorator_list:
        if not isinstance(decorator, ast.Call) or last_name(decorator.func) != "parametrize" or len(decorator.args) < 2:
            continue
        names, rows = _names(decorator.args[0]), _rows(decorator.args[1], page.tree)
        if names and rows:
            failing = [row for row in rows if any(_row_name(row) in ending[1:-1] for ending in page.endings if _row_name(row))]
            new = [row for row in failing or rows if page.is_new(row)]
            row = (new or failing or rows)[0]
            found.append(ast.parse(f"{', '.join(names)} = {_bare(row)}").body[0])
    return found


def _rows(node: ast.expr, tree: ast.Module) -> list[ast.expr]:
    if isinstance(node, ast.Name):
        meant = [found.value for found in tree.body if isinstance(found, ast.Assign) and node.id in _bound(found)]
        return _rows(meant[0], tree) if meant and not isinstance(meant[0], ast.Name) else []
    return list(node.elts) if isinstance(node, ast.List | ast.Tuple) else []


def _row_name(row: ast.expr) -> str:
    """What pytest calls it, if it is made of plain values."""
    parts = row.elts if isinstance(row, ast.Tuple) else [row]
    if isinstance(row, ast.Call):
        given = [keyword.value for keyword in row.keywords if keyword.arg == "id"]
        parts = given or row.args
    return "-".join(str(part.value) for part in parts if isinstance(part, ast.Constant))


def _names(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [name.strip() for name in node.value.split(",") if name.strip()]
    elements = node.elts if isinstance(node, ast.List | ast.Tuple) else []
    return [found.value for found in elements if isinstance(found, ast.Constant) and isinstance(found.value, str)]


def _bare(row: ast.expr) -> str:
    parts = row.elts if isinstance(row, ast.Tuple) else row.args if isinstance(row, ast.Call) and last_name(row.func) == "param" else [row]
    return ", ".join(ast.unparse(part) for part in parts)


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """Names that are bound, and the modules they come from."""
    for name in node.names:
        module = name.name if isinstance(node, ast.Import) else node.module or ""
        yield (name.asname or name.name).split(".")[0], module


def _imports(shown: Sequence[ast.stmt], tree: ast.Module) -> list[str]:
    """Of what is used, the runner and the standard library's most usual excepted."""
    wanted = set().union(*(_loaded(node) for node in shown)) - _USUAL
    code = "\n".join(ast.unparse(node) for node in shown)
    lines = []
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [name for name in node.names if (name.asname or name.name).split(".")[0] in wanted]
            names = [name for name in names if name.asname or name.name in code]
            if names:
                copied = ast.Import(names) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, names, node.level)
                lines.append(ast.unparse(copied))
    return lines


_USUAL = frozenset({"pytest", "sys", "os", "re", "datetime", "itertools", "functools", "mock", "unittest", "raises", "io", "typing", "t"})
_UNRELATED = frozenset(
    {"tmp_path", "tmpdir", "capsys", "capfd", "monkeypatch", "request", "caplog", "mocker", "recwarn", "tmp_path_factory"}
)
"""Fixtures that are no part of a project."""


def _constants(shown: Sequence[ast.stmt], tree: ast.Module) -> list[str]:
    """Short values of the module that are used."""
    wanted = set().union(*(_loaded(node) for node in shown))
    return [
        ast.unparse(node)
        for node in needed(tree, sorted(wanted))
        if isinstance(node, ast.Assign) and not wanted.isdisjoint(_bound(node)) and len(ast.unparse(node)) < 200
    ]


def _helpers(shown: Sequence[ast.stmt], tree: ast.Module) -> list[ast.stmt]:
    """Functions and classes of the module that are used, fixtures and tests excepted."""
    wanted = set().union(*(_loaded(node) for node in shown))
    return [
        node
        for node in needed(tree, sorted(wanted))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.decorator_list
        and not node.name.casefold().startswith("test")
    ]


class _Plainer(ast.NodeTransformer):
    """unittest's ways to claim as asserts; what pytest is called stays."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        call = node.value
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            return node
        name, arguments = call.func.attr, call.args
        if name in _OPERATORS and len(arguments) >= 2:
            return ast.Assert(ast.Compare(arguments[0], [_OPERATORS[name]], [arguments[1]]))
        if name in ("assertTrue", "assertIsNotNone") and arguments:
            return ast.Assert(arguments[0])
        if name == "assertFalse" and arguments:
            return ast.Assert(ast.UnaryOp(ast.Not(), arguments[0]))
        if name == "assertIsNone" and arguments:
            return ast.Assert(ast.Compare(arguments[0], [ast.Is()], [ast.Constant(None)]))
        return node


def _plain(node: ast.stmt) -> str:
    copied = ast.parse(ast.unparse(node))
    return ast.unparse(ast.fix_missing_locations(_Plainer().visit(copied)))
