"""What test functions use: names, attributes, keywords, imports, exceptions, messages. Owns no judgement of what must be told.

Counted are the functions asked about and all of their file that they need: fixtures, helpers, constants, the rest of their class.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from trunkline.tasks.factory.definitions import parsed
from trunkline.tasks.swe.sites import last_name

_RAISES = frozenset({"raises", "assertRaises", "assertRaisesRegex", "warns", "deprecated_call", "assertWarns", "assertWarnsRegex"})
_LONG = 200
_MATCHED = frozenset({"match", "assertRaisesRegex", "assertWarnsRegex", "search", "fullmatch"})


@dataclass(frozen=True)
class Expected:
    """An exception or warning that a test expects."""

    exception: str
    """As the test writes it: 'ValueError', 'pkg.Wrong', '(KeyError, IndexError)'."""
    call: str
    """What must raise it, in the test's words; '' if it is more than a line."""
    message: str | None = None
    """A regular expression that the message must match; None if any will do."""


@dataclass
class Uses:
    """What some test functions use."""

    imports: set[tuple[str, str]] = field(default_factory=set)
    """Modules and names from them; ('pkg.mod', '') imports the module."""
    names: dict[str, str] = field(default_factory=dict)
    """Names and attributes that the file does not define itself, and one expression that shows each."""
    keywords: dict[str, str] = field(default_factory=dict)
    """Of calls, and the called name."""
    positional: dict[str, int] = field(default_factory=dict)
    """Called names, and the most arguments by place."""
    expected: list[Expected] = field(default_factory=list)
    """Exceptions and warnings."""
    strings: list[str] = field(default_factory=list)
    """Literals, documentation excepted."""


def uses_of(source: str, functions: Collection[str]) -> Uses | None:
    """Of test functions by name ('TestA::test_b'), with what they need of their file. None if the file is no Python of this host."""
    tree = parsed(source)
    if tree is None:
        return None
    uses = Uses()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            uses.imports |= set(_imported(node))
    nodes = needed(tree, functions)
    own = _own_names(tree) - {found for _, found in uses.imports}
    classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    for node in nodes:
        _Walk(uses, own, classes).visit(node)
    return uses


def needed(tree: ast.Module, functions: Collection[str]) -> list[ast.stmt]:
    """Statements of the module that these functions are in or need, in its order."""
    by_name = _top_level(tree)
    wanted = [name for name, node in by_name.items() if _is_automatic(node)]
    kept: dict[int, ast.stmt] = {}
    tests: dict[str, set[str]] = {}
    for function in functions:
        first, _, rest = function.partition("::")
        tests.setdefault(first, set()).add(rest.split("::")[0])
    wanted += list(tests)
    seen: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in seen or (node := by_name.get(name)) is None:
            continue
        seen.add(name)
        reduced = _without_other_tests(node, tests.get(name, set()))
        kept[node.lineno] = reduced
        wanted += sorted(_loaded(reduced))
    return [kept[line] for line in sorted(kept)]


def find_function(tree: ast.Module, function: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """A test by its name in the file: 'TestA::test_b'."""
    body: list[ast.stmt] = tree.body
    node: ast.stmt | None = None
    for part in function.split("::"):
        node = next((found for found in body if getattr(found, "name", None) == part), None)
        if node is None:
            return None
        body = getattr(node, "body", [])
    return node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else None


def _top_level(tree: ast.Module) -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for name in ast.walk(node):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    found[name.id] = node
    return found


def _without_other_tests(node: ast.stmt, wanted: Collection[str]) -> ast.stmt:
    """A test class with only the wanted tests; helpers, fixtures and attributes stay."""
    if not isinstance(node, ast.ClassDef) or not wanted:
        return node
    body = [part for part in node.body if not getattr(part, "name", "").startswith("test") or getattr(part, "name", "") in wanted]
    copied = ast.ClassDef(node.name, node.bases, node.keywords, body, node.decorator_list)
    return ast.copy_location(copied, node)


def _is_automatic(node: ast.stmt) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any(
        isinstance(found, ast.Call) and any(keyword.arg == "autouse" for keyword in found.keywords)
        for found in decorators
        if isinstance(found, ast.expr)
    )


def _loaded(node: ast.AST) -> set[str]:
    """Names that it uses, and parameters, which may be fixtures; not what a function binds itself."""
    parts = list(ast.iter_child_nodes(node))
    found = set().union(*map(_loaded, parts))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        inside = set().union(*map(_loaded, node.body))
        around = set().union(*(_loaded(part) for part in parts if part not in node.body))
        found = (inside - _bound_by(node.body)) | around
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        found.add(node.id)
    elif isinstance(node, ast.arg):
        found.add(node.arg)
    return found


def _bound_by(body: Collection[ast.AST]) -> set[str]:
    """Names that these statements of one function give a meaning."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        else:
            found |= _bound_by([*ast.iter_child_nodes(node)])
    return found


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    for name in node.names:
        if isinstance(node, ast.Import):
            yield name.name, ""
        elif not node.level and node.module:
            yield node.module, name.name


def _own_names(tree: ast.Module) -> set[str]:
    """Names that the file itself gives a meaning."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return found


class _Walk(ast.NodeVisitor):
    def __init__(self, uses: Uses, own: Collection[str], classes: Collection[str]) -> None:
        self.uses = uses
        self.own = own
        self.classes = classes

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id not in self.own:
            self.uses.names.setdefault(node.id, node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.uses.names.setdefault(node.attr, _short(node))
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.uses.imports |= set(_imported(node))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.uses.imports |= set(_imported(node))

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # what stands for itself is documentation
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and node.value not in self.uses.strings:
            self.uses.strings.append(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        called = last_name(node.func)
        for keyword in node.keywords:
            if keyword.arg:
                self.uses.keywords.setdefault(keyword.arg, called)
        if called and not any(isinstance(argument, ast.Starred) for argument in node.args):
            self.uses.positional[called] = max(len(node.args), self.uses.positional.get(called, 0))
        if called in _RAISES and node.args and len(node.args) > 1 and "Regex" not in called:
            made, arguments = node.args[1], ", ".join(_short(argument) for argument in node.args[2:])
            self._expect(node, _short(made.body) if isinstance(made, ast.Lambda) else f"{_short(made)}({arguments})")
        self.generic_visit(node)

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            call = item.context_expr
            if isinstance(call, ast.Call) and last_name(call.func) in _RAISES and call.args:
                body = "\n".join(ast.unparse(statement) for statement in node.body)
                self._expect(call, body)
        self.generic_visit(node)

    visit_AsyncWith = visit_With

    def _expect(self, call: ast.Call, body: str) -> None:
        message = _message(call)
        expected = Expected(ast.unparse(call.args[0]), "" if "\n" in body or len(body) > _LONG else body, message)
        is_raised_by_test = expected.exception in self.classes or ("raise " in body and (message is None or message in body))
        if expected not in self.uses.expected and not is_raised_by_test:
            self.uses.expected.append(expected)


def _message(call: ast.Call) -> str | None:
    given = [keyword.value for keyword in call.keywords if keyword.arg in _MATCHED | {"expected_regex"}]
    if last_name(call.func) in _MATCHED and len(call.args) > 1:
        given.append(call.args[1])
    for value in given:
        found = value.args[0] if isinstance(value, ast.Call) and last_name(value.func) == "escape" and value.args else value
        if isinstance(found, ast.Constant) and isinstance(found.value, str):
            return found.value
        if isinstance(found, ast.JoinedStr | ast.BinOp | ast.Name | ast.Attribute):
            return ast.unparse(found)
    return None


def _short(node: ast.AST) -> str:
    words = ast.unparse(node)
    return words if len(words) <= 120 and "\n" not in words else words.splitlines()[0][:100] + "..."
