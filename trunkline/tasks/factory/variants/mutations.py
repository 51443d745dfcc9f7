"""Single faults in the functions of a Python file: all that there are, as one small change of the text each. Owns no choice, runs nothing.

source ─► functions ─► their nodes ─► slips (faults_in_*.py) ─► those that parse, mean something else, and are not there twice
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from trunkline.tasks.factory.variants.edits import Edit, SourceBytes
from trunkline.tasks.factory.variants.faults_in_expressions import EXPRESSIONS, Place, negated
from trunkline.tasks.factory.variants.faults_in_statements import STATEMENTS
from trunkline.tasks.swe.syntax import parse

Function = ast.FunctionDef | ast.AsyncFunctionDef
_NOT_WALKED = frozenset({"annotation", "returns", "decorator_list", "type_params", "type_comment"})
_UNTOUCHED = (ast.JoinedStr, ast.Assert, ast.Raise, ast.ClassDef, ast.Import, ast.ImportFrom)
"""f-strings have no right columns before Python 3.12; what is said in asserts and exceptions is hardly what a test looks at."""


@dataclass(frozen=True)
class Mutation:
    """A fault in one function of a file."""

    path: str
    """Of the file, in the workspace."""
    function: str
    """Which function, such as 'take' or 'Graph.walk'; of a function in a function the outer one."""
    line: int
    """The first line that changes, counted from 1."""
    operator: str
    """What kind of slip it is, such as 'boundary'."""
    before: str
    """The lines that change, as they are right."""
    after: str
    """The same with the fault; '' if they are gone."""
    original: str = field(repr=False)
    """The whole file, right."""
    edit: Edit = field(repr=False)
    """The change, in bytes of it."""

    @property
    def source(self) -> str:
        """The whole file with the fault."""
        return SourceBytes(self.original.encode()).edited(self.edit)


def find_mutations(source: str, *, path: str) -> list[Mutation]:
    """All there are, in the order of the file; [] if it cannot be parsed. The same source always gives the same."""
    try:
        content, module = SourceBytes(source.encode()), parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    found: list[Mutation] = []
    for name, function in functions_of(module):
        found += _of_function(name, function, content, source, path)
    return found


def functions_of(module: ast.Module) -> Iterator[tuple[str, Function]]:
    """The functions of a module and the methods of its classes, with their names; none that only declares a type."""
    yield from _functions(module.body, "")


def _functions(body: list[ast.stmt], owner: str) -> Iterator[tuple[str, Function]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
            if "overload" not in marks:
                yield owner + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _functions(node.body, f"{owner}{node.name}.")
        elif isinstance(node, ast.If | ast.Try):
            yield from _functions([*node.body, *node.orelse], owner)


def _of_function(name: str, function: Function, content: SourceBytes, source: str, path: str) -> Iterator[Mutation]:
    """Each judged by the function's own lines, since parsing a long file anew for each would take minutes."""
    first = min([function.lineno, *(mark.lineno for mark in function.decorator_list)])
    start, end = content.at(first), content.at((function.end_lineno or function.lineno) + 1)
    indented = content.content[start : start + 1] in b" \t"
    seen = {_meaning(content.content[start:end].decode(), indented=indented)}
    for edit in sorted(_edits(function, content), key=lambda edit: (edit.start, edit.end)):
        meaning = _meaning(content.edited(edit, start, end), indented=indented)
        if meaning and meaning not in seen:
            seen.add(meaning)
            yield _told(name, edit, content, source, path)


def _meaning(text: str, *, indented: bool) -> str:
    """The tree of a function's lines, without places; '' if they do not parse."""
    try:
        return ast.dump(parse(f"if 1:\n{text}" if indented else text))
    except (SyntaxError, ValueError, RecursionError):
        return ""


def _told(name: str, edit: Edit, content: SourceBytes, source: str, path: str) -> Mutation:
    """With the lines that change, the same at both ends left out."""
    first, last = content.line_of(edit.start), content.line_of(max(edit.start, edit.end - 1))
    start, end = content.at(first), content.at(last + 1)
    before = content.content[start:end].decode().splitlines()
    after = content.edited(edit, start, end).splitlines()
    while before and after and before[0] == after[0]:
        before, after, first = before[1:], after[1:], first + 1
    while before and after and before[-1] == after[-1]:
        before, after = before[:-1], after[:-1]
    return Mutation(path, name, first, edit.operator, "\n".join(before), "\n".join(after), source, edit)


def _edits(function: Function, content: SourceBytes) -> Iterator[Edit]:
    names = _Names.of(function)
    for place in _places(function, content, names):
        makers = [EXPRESSIONS.get(type(place.node)), STATEMENTS.get(type(place.node)), negated]
        for make in filter(None, makers):
            yield from (edit for edit in make(place) if edit is not None)


def _places(function: Function, content: SourceBytes, names: _Names) -> Iterator[Place]:
    for default in [*function.args.defaults, *filter(None, function.args.kw_defaults)]:
        yield Place(default, function.args, "defaults", content, is_default=True)
    waiting: list[tuple[ast.AST, ast.AST, str]] = [(node, function, "body") for node in function.body]
    while waiting:
        node, parent, name = waiting.pop()
        if isinstance(node, _UNTOUCHED):
            continue
        yield Place(node, parent, name, content, names.before(getattr(node, "lineno", 0)))
        for part, value in ast.iter_fields(node):
            if part not in _NOT_WALKED:
                parts = value if isinstance(value, list) else [value]
                waiting += [(one, node, part) for one in parts if isinstance(one, ast.AST)]


@dataclass(frozen=True)
class _Names:
    """The variables of a function, and from which line on they have a value."""

    lines: dict[str, int]

    @classmethod
    def of(cls, function: Function) -> _Names:
        arguments = function.args
        plain = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        lines = {one.arg: function.lineno for one in plain if one.arg not in ("self", "cls")}
        for node in ast.walk(function):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                lines[node.id] = min(node.lineno, lines.get(node.id, node.lineno))
        return cls(lines)

    def before(self, line: int) -> tuple[str, ...]:
        known = [(since, name) for name, since in self.lines.items() if since < line and not name.startswith("_")]
        return tuple(name for _, name in sorted(known, key=lambda one: (-one[0], one[1])))
