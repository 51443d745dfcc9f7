"""Small changes of a function's text that change nothing of what it does: what a reviewer has to let pass. Owns no choice, runs nothing.

source, functions ─► turned comparisons, split chains, renamed variables, named results, ... ─► those that parse, each once
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from trunkline.tasks.factory.variants.edits import Edit, SourceBytes
from trunkline.tasks.factory.variants.mutations import Function, functions_of
from trunkline.tasks.swe.syntax import parse

_TURNED: dict[type[ast.cmpop], str] = {ast.Lt: ">", ast.Gt: "<", ast.LtE: ">=", ast.GtE: "<=", ast.Eq: "==", ast.NotEq: "!="}
_SIGNS: dict[type[ast.cmpop], str] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_NEGATED: dict[type[ast.cmpop], str] = {ast.NotIn: "in", ast.IsNot: "is"}
_RESULTS = ("result", "value", "answer", "outcome")
_OTHER_NAMES = ("current", "entry", "element", "piece", "part", "other", "chosen", "amount", "place", "known")
_COUNTING: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-"}
_LOOKS_AT_NAMES = frozenset({"locals", "vars", "eval", "exec", "dir"})
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Equivalent:
    """One function of a file, in other words."""

    path: str
    """Of the file, in the workspace."""
    function: str
    """Which function, such as 'take' or 'Graph.walk'."""
    line: int
    """The first line that changes, counted from 1."""
    operator: str
    """What was done, such as 'turned'."""
    source: str
    """The whole file."""


def find_equivalents(source: str, *, path: str, functions: Collection[str]) -> list[Equivalent]:
    """All there are in these functions, in the order of the file; [] if it cannot be parsed."""
    try:
        content, module = SourceBytes(source.encode()), parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    found: dict[str, Equivalent] = {}
    for name, function in functions_of(module):
        if name not in functions or _LOOKS_AT_NAMES & {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}:
            continue
        for edits in _edits(function, content):
            text = _edited(content, edits)
            if text != source and _parses(text):
                found.setdefault(text, Equivalent(path, name, content.line_of(edits[0].start), edits[0].operator, text))
    return sorted(found.values(), key=lambda one: (one.line, one.operator, one.source))


def _edits(function: Function, content: SourceBytes) -> Iterator[list[Edit]]:
    """Each list is one equivalent: edits in the order of the text."""
    names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    bound = names | {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    for node in _nodes(function):
        if isinstance(node, ast.Compare):
            yield from ([edit] for edit in _compared(node, content))
        elif isinstance(node, ast.IfExp):
            parts = [_enclosed(part, content) for part in (node.orelse, node.test, node.body)]
            yield [content.replace("branches", node, "({} if not {} else {})".format(*parts))]
        elif isinstance(node, ast.Return) and node.value is not None and node.lineno == node.end_lineno:
            yield from ([edit] for edit in _returned(node, content, bound))
        elif isinstance(node, ast.AugAssign):
            yield from ([edit] for edit in _counted(node, function, content))
        elif isinstance(node, ast.Slice) and node.lower is None and node.upper is not None and node.step is None:
            yield [Edit("slice", content.start(node), content.start(node), "0")]
        elif isinstance(node, ast.List | ast.Dict) and content.text(node) in ("[]", "{}"):
            yield [content.replace("empty", node, "list()" if isinstance(node, ast.List) else "dict()")]
        elif isinstance(node, ast.Call) and content.text(node.func) == "range" and len(node.args) == 1 and not node.keywords:
            yield [Edit("range", content.start(node.args[0]), content.start(node.args[0]), "0, ")]
    yield from _renamed(function, content, bound)


def _compared(node: ast.Compare, content: SourceBytes) -> Iterator[Edit]:
    operands = [node.left, *node.comparators]
    texts = [_enclosed(one, content) for one in operands]
    if len(node.ops) == 1:
        kind = type(node.ops[0])
        if kind in _TURNED and all(map(_is_plain, operands)):
            yield content.replace("turned", node, f"{texts[1]} {_TURNED[kind]} {texts[0]}")
        elif kind in _NEGATED:
            yield content.replace("negated", node, f"(not {texts[0]} {_NEGATED[kind]} {texts[1]})")
    elif len(node.ops) == 2 and _is_plain(operands[1]) and all(type(op) in _SIGNS for op in node.ops):
        first, second = (_SIGNS[type(op)] for op in node.ops)
        yield content.replace("split", node, f"({texts[0]} {first} {texts[1]} and {texts[1]} {second} {texts[2]})")


def _returned(node: ast.Return, content: SourceBytes, bound: Collection[str]) -> Iterator[Edit]:
    assert node.value is not None
    name = next((one for one in _RESULTS if one not in bound), None)
    if name and not isinstance(node.value, ast.Name | ast.Constant) and content.without_lines("", node) is not None:
        yield content.replace("named result", node, f"{name} = {content.text(node.value)}\n{' ' * node.col_offset}return {name}")


def _counted(node: ast.AugAssign, function: Function, content: SourceBytes) -> Iterator[Edit]:
    """Only of a number that the function has begun itself: += on anything else may change it in place."""
    if type(node.op) not in _COUNTING or not isinstance(node.target, ast.Name):
        return
    name = node.target.id
    begun = [
        one
        for one in ast.walk(function)
        if isinstance(one, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in one.targets)
    ]
    if begun and all(isinstance(one.value, ast.Constant) and isinstance(one.value.value, int) for one in begun):
        yield content.replace("written out", node, f"{name} = {name} {_COUNTING[type(node.op)]} ({content.text(node.value)})")


def _renamed(function: Function, content: SourceBytes, bound: Collection[str]) -> Iterator[list[Edit]]:
    """A variable that the function binds by assignment alone, everywhere in it."""
    text = content.content[content.start(function) : content.end(function)].decode()
    fresh = [name for name in _OTHER_NAMES if not re.search(rf"\b{name}\b", text)]
    for name in sorted(_own_variables(function)):
        places = [node for node in ast.walk(function) if isinstance(node, ast.Name) and node.id == name]
        if not fresh or len(name) < 2 or len(re.findall(rf"\b{re.escape(name)}\b", text)) != len(places):
            continue  # said in a text, a comment or an f-string, too
        edits = [content.replace("renamed", node, fresh[0]) for node in places]
        yield sorted(edits, key=lambda edit: edit.start)


def _own_variables(function: Function) -> set[str]:
    inner = {id(part) for node in ast.walk(function) if isinstance(node, _SCOPES) and node is not function for part in ast.walk(node)}
    others = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    own: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Global | ast.Nonlocal):
            others.update(node.names)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            (others if id(node) in inner or isinstance(node.ctx, ast.Del) else own).add(node.id)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            others.add(node.name)
    return own - others


def _nodes(function: Function) -> Iterator[ast.AST]:
    """Of its body; f-strings have no right columns before Python 3.12."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop(0)
        if not isinstance(node, ast.JoinedStr | ast.AnnAssign):
            yield node
            waiting += ast.iter_child_nodes(node)


def _enclosed(node: ast.expr, content: SourceBytes) -> str:
    """In brackets, unless it needs none anywhere: its own text has not those that it may stand in."""
    text = content.text(node)
    return text if isinstance(node, ast.Name | ast.Constant | ast.Attribute | ast.Call | ast.Subscript) else f"({text})"


def _is_plain(node: ast.expr) -> bool:
    return isinstance(node, ast.Name | ast.Constant)


def _edited(content: SourceBytes, edits: list[Edit]) -> str:
    parts, at = [], 0
    for edit in edits:
        parts += [content.content[at : edit.start], edit.text.encode()]
        at = edit.end
    return b"".join([*parts, content.content[at:]]).decode()


def _parses(text: str) -> bool:
    try:
        parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True
