"""Whose a value in a test is: that of the code under test, or the test's own. Owns reading a test; it is rewritten in blind_tests.py.

    expected = sorted(rows)             the test's own; nobody reads it once it is gone
    assert expected == report(rows)     what is seen is report(rows), whichever side it stands on
    assert report(rows) == rows         what is expected stays there, under a name: it can be read

It is read from the text of the test alone. In doubt a value is not the code's under test, and an expectation can be read.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

Function = ast.FunctionDef | ast.AsyncFunctionDef
OWN, FIXTURE, MADE = 0, 1, 2
"""Ranks: the test's own; what a fixture or an object of the test gives, who knows of what; the code under test had a hand in it."""
_SELF = frozenset({"self", "cls"})
_CONVERSIONS = frozenset(
    {"list", "tuple", "set", "frozenset", "dict", "iter", "str", "int", "float", "bytes", "repr", "copy", "deepcopy", "loads"}
)
_READERS = frozenset({"open", "read", "read_text", "read_bytes", "readlines", "load"})
"""Their files stay where tests run."""
_BUILTINS = frozenset(dir(builtins))
_SHORTEST = 5
_FEW = (None, True, False, 0, 1, "")
_KNOWN = sys.stdlib_module_names | {"pytest"}


@dataclass(frozen=True)
class Origins:
    """Of the names that one test uses."""

    made: frozenset[str]
    """Those of the project and of helpers, and what comes of them."""
    fixtures: frozenset[str]
    """Parameters that no table gives."""
    arguments: frozenset[str]
    """Parameters of the test."""
    bound: frozenset[str]
    """All names that the module or the test gives to something."""

    @classmethod
    def of(cls, module: ast.Module, function: Function) -> Origins:
        """Read from the text. What has no known origin is taken for the project's: a module may import everything of another."""
        arguments = {one.arg for one in ast.walk(function.args) if isinstance(one, ast.arg)}
        fixtures = arguments - set(parametrized(module, function)) | _SELF
        foreign = (set(_imported(module)) | set(_defined(module)) | set(_defined(function))) - arguments
        bound = arguments | foreign | set(_bound(module)) | _BUILTINS
        found, before = cls(frozenset(foreign), frozenset(fixtures), frozenset(arguments), frozenset(bound)), None
        read = [node for node in module.body if not isinstance(node, ast.ClassDef | Function)] + [function]
        while found != before:
            found, before = found._with_taken(read), found
        return found

    def rank(self, expression: ast.AST) -> int:
        """OWN, FIXTURE or MADE, the highest of all that is in it."""
        rank = OWN
        for node in ast.walk(expression):
            if isinstance(node, ast.Name) and (node.id in self.made or node.id not in self.bound):
                return MADE
            if isinstance(node, ast.Call) and (root(node.func) in self.arguments or not self.fixtures.isdisjoint(_names(node, ast.Load))):
                return MADE
            if isinstance(node, ast.Name) and node.id in self.fixtures:
                rank = FIXTURE
        return rank

    def _with_taken(self, nodes: Sequence[ast.AST]) -> Origins:
        """With the names that get what is made, are handed to what makes it, or are seen by functions that it may call."""
        ranked: dict[int, set[str]] = {FIXTURE: set(), MADE: set()}
        variables = {name for node in nodes for name in _names(node, ast.Store)}
        filled = {name for node in nodes for name in _to_be_filled(node)}
        for node in (part for one in nodes for part in ast.walk(one)):
            for target, value in _givings(node):
                ranked.get(self.rank(value), set()).update(_names(target, ast.Store))
            if isinstance(node, ast.withitem) and node.optional_vars is not None:  # what a block gives is known at its end
                ranked[MADE].update(_names(node.optional_vars, ast.Store))
            elif isinstance(node, ast.ExceptHandler) and node.name:
                ranked[MADE].add(node.name)
            elif isinstance(node, ast.Call) and self.rank(node) == MADE:
                parts = (*node.args, *(word.value for word in node.keywords))
                ranked[MADE] |= filled.intersection(one.id for one in parts if isinstance(one, ast.Name))
            elif isinstance(node, Function | ast.Lambda) and node not in nodes:
                ranked[MADE] |= variables.intersection(_names(node, ast.Load))
        return Origins(self.made | ranked[MADE], self.fixtures | ranked[FIXTURE] - ranked[MADE], self.arguments, self.bound)


@dataclass
class Reader:
    """Whether what a test expects can be read where it runs without its expectations."""

    origins: Origins
    """Of its names."""
    gone: Mapping[str, ast.expr | None]
    """Names that are not there any more, with what they stood for; None: a column of a table."""
    _asked: set[str] = field(default_factory=set)

    def is_readable(self, node: ast.AST) -> bool:
        """Of an expression: it is, or is put together of, what has a name, without a constant that is gone or a rule that is not told.

        What the code under test or a helper makes counts as readable, but for a text that names it.
        """
        if is_template(node):
            return False
        if self.origins.rank(node) == MADE:
            return True
        if isinstance(node, ast.Name):
            return self._is_name_readable(node.id)
        if isinstance(node, ast.Constant):
            return node.value in _FEW
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Starred | ast.Await):
            return not isinstance(getattr(node, "slice", None), ast.Slice) and self.is_readable(node.value)
        if isinstance(node, ast.Call):
            named = node.func.attr if isinstance(node.func, ast.Attribute) else root(node.func)
            parts = (*node.args, *(word.value for word in node.keywords))
            return named in _READERS or (named in _CONVERSIONS and self._are_readable(parts))
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return self._are_readable(node.elts)
        return isinstance(node, ast.Dict) and self._are_readable([*filter(None, node.keys), *node.values])

    def _are_readable(self, nodes: Collection[ast.AST]) -> bool:
        return all(self.is_readable(node) for node in nodes)

    def _is_name_readable(self, name: str) -> bool:
        if name not in self.gone:
            return True
        value = self.gone[name]
        if value is None or name in self._asked:
            return False
        self._asked.add(name)
        try:
            return self.is_readable(value)
        finally:
            self._asked.discard(name)


def parametrized(module: ast.Module, function: Function) -> Iterator[str]:
    """Arguments that tables of the test or of its class give."""
    classes = [node for node in module.body if isinstance(node, ast.ClassDef) and function in node.body]
    for decorator in (*function.decorator_list, *(one for node in classes for one in node.decorator_list)):
        if isinstance(decorator, ast.Call) and name_of(decorator.func) == "parametrize" and decorator.args:
            yield from parameter_names(decorator.args[0])


def parameter_names(node: ast.expr) -> list[str]:
    """Of a table: 'a, b' or ['a', 'b']; [] if they are not written out."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [name.strip() for name in node.value.split(",") if name.strip()]
    if isinstance(node, ast.List | ast.Tuple):
        names = [cell.value for cell in node.elts if isinstance(cell, ast.Constant) and isinstance(cell.value, str)]
        return names if len(names) == len(node.elts) else []
    return []


def loaded(nodes: Collection[ast.AST]) -> set[str]:
    """Names that are used in them."""
    return {name for node in nodes for name in _names(node, ast.Load)}


def is_template(node: ast.AST) -> bool:
    """f"..." or "...".format(...) or "..." % ..."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        node = node.func.value
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        node = node.left
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return any(isinstance(one, ast.Constant) and isinstance(one.value, str) and len(one.value) >= _SHORTEST for one in parts)


def name_of(node: ast.expr) -> str:
    """The last part of a dotted name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def root(node: ast.AST) -> str:
    """The name at the start of `a.b[0].c()`; '' if it starts otherwise."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _imported(module: ast.Module) -> Iterator[str]:
    """Names of what is neither Python's nor pytest's."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((one.asname or one.name.partition(".")[0]) for one in node.names if one.name.partition(".")[0] not in _KNOWN)
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").partition(".")[0] not in _KNOWN):
            yield from (one.asname or one.name for one in node.names)


def _defined(node: ast.Module | Function) -> Iterator[str]:
    found = node.body if isinstance(node, ast.Module) else [one for one in ast.walk(node) if one is not node]
    yield from (one.name for one in found if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef))


def _bound(node: ast.AST) -> Iterator[str]:
    yield from _names(node, ast.Store)
    for one in ast.walk(node):
        if isinstance(one, ast.alias):
            yield one.asname or one.name.partition(".")[0]
        elif isinstance(one, ast.ExceptHandler) and one.name:
            yield one.name
        elif isinstance(one, ast.arg):
            yield one.arg


def _givings(node: ast.AST) -> Iterator[tuple[ast.AST, ast.expr]]:
    """Targets, and what they get."""
    if isinstance(node, ast.Assign):
        yield from ((target, node.value) for target in node.targets)
    elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value is not None:
        yield node.target, node.value
    elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
        yield node.target, node.iter


def _to_be_filled(node: ast.AST) -> Iterator[str]:
    """Names of empty collections and new objects: who is handed one may put something in."""
    for one in ast.walk(node):
        for target, value in _givings(one):
            is_empty = (isinstance(value, ast.List) and not value.elts) or (isinstance(value, ast.Dict) and not value.keys)
            is_new = isinstance(value, ast.Call) and (name_of(value.func)[:1].isupper() or not (value.args or value.keywords))
            if is_empty or is_new:
                yield from _names(target, ast.Store)


def _names(node: ast.AST, context: type[ast.expr_context]) -> Iterator[str]:
    yield from (one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, context))
