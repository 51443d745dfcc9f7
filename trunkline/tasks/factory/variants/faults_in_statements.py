"""Slips that people make in statements: which there are of one, as edits. Owns no walk and no expressions."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from trunkline.tasks.factory.variants.edits import Edit
from trunkline.tasks.factory.variants.faults_in_expressions import Place

_MOST_NAMES = 2
_LEAVING = (ast.Return, ast.Raise, ast.Continue, ast.Break)


def guards(place: Place) -> Iterator[Edit | None]:
    """An early way out, forgotten."""
    node = place.node
    assert isinstance(node, ast.If)
    is_elif = not place.source.content[place.source.start(node) :].startswith(b"if")
    if len(node.body) == 1 and not node.orelse and isinstance(node.body[0], _LEAVING) and not is_elif:
        yield place.source.without_lines("guard dropped", node)


def loop_control(place: Place) -> Iterator[Edit | None]:
    """break for continue."""
    is_break = isinstance(place.node, ast.Break)
    yield place.source.replace("break continue", place.node, "continue" if is_break else "break")


def returns(place: Place) -> Iterator[Edit | None]:
    """Another variable."""
    node = place.node
    assert isinstance(node, ast.Return)
    if isinstance(node.value, ast.Name):
        others = [name for name in place.names if name != node.value.id]
        for name in others[:_MOST_NAMES]:
            yield place.source.replace("other variable", node.value, name)


def augmented(place: Place) -> Iterator[Edit | None]:
    """= for +=, and + for -."""
    node = place.node
    assert isinstance(node, ast.AugAssign)
    signs: dict[type[ast.operator], tuple[str, str]] = {ast.Add: ("+=", "-="), ast.Sub: ("-=", "+="), ast.Mult: ("*=", "/=")}
    if type(node.op) in signs:
        sign, other = signs[type(node.op)]
        yield place.source.replace_sign("augmented assignment", node.target, sign, node.value, "=")
        if not isinstance(node.value, ast.JoinedStr | ast.List | ast.Tuple | ast.ListComp) and not _is_text(node.value):
            yield place.source.replace_sign("augmented assignment", node.target, sign, node.value, other)


def bare_calls(place: Place) -> Iterator[Edit | None]:
    """What is done for its effect, forgotten."""
    node = place.node
    assert isinstance(node, ast.Expr)
    if isinstance(node.value, ast.Call):
        yield place.source.without_lines("statement dropped", node)


def attributes(place: Place) -> Iterator[Edit | None]:
    """Something that is to be remembered, forgotten."""
    node = place.node
    assert isinstance(node, ast.Assign)
    if all(isinstance(target, ast.Subscript) for target in node.targets):
        yield place.source.without_lines("statement dropped", node)


STATEMENTS: dict[type[ast.AST], Callable[[Place], Iterator[Edit | None]]] = {
    ast.If: guards,
    ast.Break: loop_control,
    ast.Continue: loop_control,
    ast.Return: returns,
    ast.AugAssign: augmented,
    ast.Expr: bare_calls,
    ast.Assign: attributes,
}
"""By the kind of statement."""


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
