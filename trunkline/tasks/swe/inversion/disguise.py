"""The same program in other words, drawn anew for each tree, so that its text says little of which tree it is. Owns no tree and no verdict.

    source ─► docstrings and version as in the changed version ─► equal expressions, branches swapped ─► other local names ─► unparsed

What is written means the same: comparisons of names and constants are turned round, branches swapped under a negated condition, truth
values negated twice, results named before they are returned, local variables renamed. Comments and layout are gone.
"""

from __future__ import annotations

import ast
import random
import string
from collections.abc import Iterator
from dataclasses import dataclass

from trunkline.tasks.swe.syntax import parse

Function = ast.FunctionDef | ast.AsyncFunctionDef
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_VERSIONS = frozenset(
    {"__version__", "version", "VERSION", "__version_info__", "version_info", "__date__", "__version_tuple__", "version_tuple"}
)
_LOOKS_AT_NAMES = frozenset({"locals", "vars", "eval", "exec", "dir", "globals", "inspect", "_getframe"})
"""What a function that says one of these does may depend on how it is written."""
_TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE, ast.Eq: ast.Eq, ast.NotEq: ast.NotEq,
}  # fmt: skip
_NEGATED: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.IsNot: ast.Is, ast.NotIn: ast.In}
_NAME_LETTERS = 7
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def disguise(source: str, *, like: str | None, rng: random.Random) -> str:
    """The source in other words; as it is if it cannot be parsed.

    Args:
        source: Of one file.
        like: The file as every tree's docstrings and version numbers are, since these tell apart what they do not change; None: its own.
        rng: Draws what is written otherwise.
    """
    try:
        module = parse(source)
        pattern = parse(like) if like is not None else None
    except (SyntaxError, ValueError, RecursionError):
        return source
    if pattern is not None:
        _take_docstrings(module, pattern)
        _take_versions(module, pattern)
    module = _Rewriter(rng, _Words(rng, {*_identifiers(module)})).visit(module)
    return f"{ast.unparse(ast.fix_missing_locations(module))}\n"


@dataclass
class _Words:
    """Names that nobody has, all of one length."""

    rng: random.Random
    taken: set[str]

    def fresh(self) -> str:
        while (name := "".join(self.rng.choices(string.ascii_lowercase, k=_NAME_LETTERS))) in self.taken:
            pass
        self.taken.add(name)
        return name


class _Rewriter(ast.NodeTransformer):
    """Each place that could be written otherwise is, at every second throw."""

    def __init__(self, rng: random.Random, words: _Words) -> None:
        self.rng, self.words, self.depth = rng, words, 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        if len(node.ops) != 1:
            return node
        (op,), (right,) = node.ops, node.comparators
        if type(op) in _NEGATED and self._throw():
            return ast.UnaryOp(ast.Not(), ast.Compare(node.left, [_NEGATED[type(op)]()], [right]))
        if type(op) in _TURNED and _is_plain(node.left) and _is_plain(right) and self._throw():
            return ast.Compare(right, [_TURNED[type(op)]()], [node.left])
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        node.test = self._truth(node.test)
        return ast.IfExp(_not(node.test), node.orelse, node.body) if self._throw() else node

    def visit_If(self, node: ast.If) -> ast.AST:
        self.generic_visit(node)
        node.test = self._truth(node.test)
        return ast.If(_not(node.test), node.orelse, node.body) if node.orelse and self._throw() else node

    def visit_While(self, node: ast.While) -> ast.AST:
        self.generic_visit(node)
        node.test = self._truth(node.test)
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        if not self.depth or node.value is None or not self._throw():
            return node
        name = self.words.fresh()
        return [ast.Assign([ast.Name(name, ast.Store())], node.value), ast.Return(ast.Name(name, ast.Load()))]

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """As it is: before Python 3.12 not every expression can stand in one."""
        return node

    def _function(self, node: Function) -> ast.AST:
        if _LOOKS_AT_NAMES & {*_identifiers(node)}:
            return node
        is_outer = self.depth == 0
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1
        if is_outer:
            _rename(node, {name: self.words.fresh() for name in sorted(_own_variables(node))})
        return node

    def _truth(self, test: ast.expr) -> ast.expr:
        """By De Morgan, where only the truth of a value counts."""
        if not isinstance(test, ast.BoolOp) or not self._throw():
            return test
        other = ast.Or() if isinstance(test.op, ast.And) else ast.And()
        return ast.UnaryOp(ast.Not(), ast.BoolOp(other, [_not(value) for value in test.values]))

    def _throw(self) -> bool:
        return self.rng.random() < 0.5


def _not(test: ast.expr) -> ast.expr:
    """Of a condition, of which only the truth counts."""
    is_not = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
    return test.operand if is_not else ast.UnaryOp(ast.Not(), test)  # type: ignore[attr-defined]


def _is_plain(node: ast.expr) -> bool:
    """Evaluating it does nothing, so that it does not matter when that is."""
    return isinstance(node, ast.Name | ast.Constant)


def _identifiers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        for value in (getattr(node, name, None) for name in ("id", "attr", "name", "arg", "asname", "rest")):
            if isinstance(value, str):
                yield value
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield from node.names


def _own_variables(function: Function) -> set[str]:
    """Names that it binds by assignment alone, and that nothing within it binds, too."""
    scopes = [node for statement in function.body for node in ast.walk(statement) if isinstance(node, _SCOPES)]
    inner = {id(node) for scope in scopes for node in ast.walk(scope)}
    own: set[str] = set()
    others = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    for node in (part for statement in function.body for part in ast.walk(statement)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            (others if id(node) in inner or isinstance(node.ctx, ast.Del) else own).add(node.id)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            others.update(node.names)
        elif isinstance(node, ast.alias):
            others.add(node.asname or node.name.partition(".")[0])
        else:
            others.update(name for name in (getattr(node, "name", None), getattr(node, "rest", None)) if isinstance(name, str))
    return {name for name in own - others if not name.startswith("__")}


def _rename(function: Function, names: dict[str, str]) -> None:
    for statement in function.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                node.id = names.get(node.id, node.id)


def _take_docstrings(module: ast.Module, pattern: ast.Module) -> None:
    known = dict(_documented(pattern, ""))
    for name, node in _documented(module, ""):
        if name not in known:
            continue
        has_own = ast.get_docstring(node, clean=False) is not None
        if ast.get_docstring(known[name], clean=False) is not None:
            node.body[:has_own] = [known[name].body[0]]
        elif has_own:
            node.body[:1] = [] if len(node.body) > 1 or isinstance(node, ast.Module) else [ast.Pass()]


def _documented(node: _Documented, name: str) -> Iterator[tuple[str, _Documented]]:
    yield name, node
    for part in node.body:
        if isinstance(part, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _documented(part, f"{name}.{part.name}")


def _take_versions(module: ast.Module, pattern: ast.Module) -> None:
    known = dict(_versions(pattern))
    for name, node in _versions(module):
        if name in known:
            node.value = known[name].value


def _versions(module: ast.Module) -> Iterator[tuple[str, ast.Assign]]:
    for node in module.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Name) and target.id in _VERSIONS:
                yield target.id, node
