"""Slips that people make in expressions: which there are of a node, as edits. Owns no walk and no statements."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from trunkline.tasks.factory.variants.edits import Edit, SourceBytes

_BOUNDARIES = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_OPPOSITES = {
    "==": "!=", "!=": "==", "is": "is not", "is not": "is", "in": "not in", "not in": "in", "<": ">", ">": "<", "<=": ">=", ">=": "<=",
}  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Is: "is", ast.IsNot: "is not",
    ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], tuple[str, tuple[str, ...]]] = {
    ast.Add: ("+", ("-",)), ast.Sub: ("-", ("+",)), ast.Mult: ("*", ("+", "/")), ast.Div: ("/", ("*", "//")), ast.FloorDiv: ("//", ("/",)),
    ast.Mod: ("%", ("//",)), ast.Pow: ("**", ("*",)), ast.LShift: ("<<", (">>",)), ast.RShift: (">>", ("<<",)), ast.BitAnd: ("&", ("|",)),
    ast.BitOr: ("|", ("&",)), ast.BitXor: ("^", ("|",)),
}  # fmt: skip
_ON_NUMBERS_ONLY = (ast.Add, ast.Mult, ast.Mod)
_NO_NUMBERS = (ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp, ast.Dict, ast.Set)
_TEXT_METHODS = frozenset({"join", "format", "strip", "lower", "upper", "replace", "split", "encode", "decode", "ljust", "rjust", "zfill"})

_SISTERS = {
    "min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor", "startswith": "endswith",
    "endswith": "startswith", "lstrip": "rstrip", "rstrip": "lstrip", "strip": "rstrip", "upper": "lower", "lower": "upper",
    "find": "rfind", "rfind": "find", "index": "rindex", "split": "rsplit", "rsplit": "split", "partition": "rpartition",
    "rpartition": "partition", "append": "extend", "extend": "append", "appendleft": "append", "popleft": "pop", "ljust": "rjust",
    "rjust": "ljust", "union": "intersection", "intersection": "union", "bisect_left": "bisect_right", "bisect_right": "bisect_left",
    "keys": "values", "values": "keys", "match": "search", "fullmatch": "match",
}  # fmt: skip
"""What a function or method is taken for."""
_OF_NAMES = frozenset({"min", "max", "any", "all", "floor", "ceil", "bisect_left", "bisect_right"})
"""Of these the ones that are called without an object."""
_COPIES = frozenset({"list", "dict", "set", "tuple", "copy", "deepcopy", "sorted", "reversed", "abs", "iter", "str", "int"})
_DROPPED_METHODS = frozenset({"copy", "strip", "lstrip", "rstrip", "lower", "casefold", "upper"})
_DROPPED_KEYWORDS = frozenset({"key", "default", "strict", "start", "maxsplit", "fillvalue", "initial", "reverse", "sep", "flags"})
_NOT_EXCHANGED = frozenset(
    {"min", "max", "isinstance", "issubclass", "getattr", "hasattr", "setattr", "print", "super", "cast", "map", "filter", "filterfalse"}
    | {"takewhile", "dropwhile", "islice", "reduce", "partial", "starmap", "repeat", "sub"}
)
"""Their order does not matter, or nobody takes it for the other: what is wrong then shows at once."""


@dataclass(frozen=True)
class Place:
    """A node of a function, where it stands."""

    node: ast.AST
    """What may be changed."""
    parent: ast.AST
    """What it is part of."""
    field: str
    """As what."""
    source: SourceBytes
    """The file."""
    names: tuple[str, ...] = ()
    """Variables that have a value when it is reached, the latest first."""
    is_default: bool = False
    """Whether it stands in the default of a parameter."""

    @property
    def is_condition(self) -> bool:
        """Whether something happens or not by it; no loop's, which might never end."""
        return (self.field == "test" and isinstance(self.parent, ast.If | ast.IfExp)) or self.field == "ifs"


def comparisons(place: Place) -> Iterator[Edit | None]:
    """A boundary one off, the other direction, the opposite; and None taken for anything that is false."""
    node, source = place.node, place.source
    assert isinstance(node, ast.Compare)
    for left, kind, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
        sign = _COMPARISONS[type(kind)]
        if sign in _BOUNDARIES:
            yield source.replace_sign("boundary", left, sign, right, _BOUNDARIES[sign])
        yield source.replace_sign("comparison", left, sign, right, _OPPOSITES[sign])
    if len(node.ops) == 1 and isinstance(node.comparators[0], ast.Constant) and node.comparators[0].value is None:
        left_text = source.text(node.left)
        if isinstance(node.ops[0], ast.Is):
            yield source.replace("truth instead of None", node, f"not {left_text}")
        elif isinstance(node.ops[0], ast.IsNot):
            yield source.replace("truth instead of None", node, left_text)


def arithmetic(place: Place) -> Iterator[Edit | None]:
    """Another sign, where the operands may be numbers."""
    node = place.node
    assert isinstance(node, ast.BinOp)
    sides = (node.left, node.right)
    if isinstance(node.op, _ON_NUMBERS_ONLY) and any(map(_is_no_number, sides)):
        return
    if type(node.op) in _ARITHMETIC and not (isinstance(place.parent, ast.Call) and last_name(place.parent.func) == "isinstance"):
        sign, others = _ARITHMETIC[type(node.op)]
        for other in others:
            yield place.source.replace_sign("arithmetic", node.left, sign, node.right, other)
    if isinstance(node.op, ast.Add | ast.Sub) and isinstance(node.right, ast.Constant) and node.right.value == 1:
        yield place.source.replace("one forgotten", node, place.source.text(node.left))


def conditions(place: Place) -> Iterator[Edit | None]:
    """and for or, and one of the parts forgotten."""
    node, source = place.node, place.source
    assert isinstance(node, ast.BoolOp)
    sign, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
    for left, right in zip(node.values, node.values[1:], strict=False):
        yield source.replace_sign("and or", left, sign, right, other)
    if len(node.values) == 2:
        for kept in node.values:
            yield source.replace("part of a condition dropped", node, source.text(kept))


def negations(place: Place) -> Iterator[Edit | None]:
    """not, forgotten."""
    node = place.node
    assert isinstance(node, ast.UnaryOp)
    if isinstance(node.op, ast.Not):
        yield place.source.replace("not dropped", node, place.source.text(node.operand))
    elif isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield place.source.replace("minus dropped", node, place.source.text(node.operand))


def constants(place: Place) -> Iterator[Edit | None]:
    """Numbers one off, True for False."""
    node, source = place.node, place.source
    assert isinstance(node, ast.Constant)
    if isinstance(node.value, bool):
        yield source.replace("wrong default" if place.is_default else "True False", node, str(not node.value))
    elif isinstance(node.value, int) and source.text(node).isdecimal() and not isinstance(place.parent, ast.pattern):
        is_bound = isinstance(place.parent, ast.Slice)
        is_index = is_bound or (isinstance(place.parent, ast.Subscript) and place.field == "slice")
        name = "slice bound" if is_bound else "index" if is_index else "wrong default" if place.is_default else "constant"
        is_no_zero = isinstance(place.parent, ast.UnaryOp | ast.BinOp)
        for value in (node.value + 1, node.value - 1):
            if value > 0 or (value == 0 and not is_no_zero):
                yield source.replace(name, node, str(value))


def subscripts(place: Place) -> Iterator[Edit | None]:
    """The index one off; a bound of a slice one off or forgotten; a copy forgotten."""
    node, source = place.node, place.source
    assert isinstance(node, ast.Subscript)
    index = node.slice
    if isinstance(index, ast.Name) and _is_position(index.id):
        for step in ("+ 1", "- 1"):
            yield source.replace("index", index, f"{index.id} {step}")
    if not isinstance(index, ast.Slice) or isinstance(node.ctx, ast.Del):
        return
    bounds = [bound for bound in (index.lower, index.upper) if bound is not None]
    if not bounds and index.step is None and isinstance(node.ctx, ast.Load):
        yield source.replace("copy dropped", node, source.text(node.value))
    for bound in bounds:
        if isinstance(bound, ast.Name | ast.Attribute | ast.Call):
            for step in ("+ 1", "- 1"):
                yield source.replace("slice bound", bound, f"{source.text(bound)} {step}")
        yield source.replace("slice bound dropped", bound, "")


def calls(place: Place) -> Iterator[Edit | None]:
    """Another function of the same kind, arguments in another order or forgotten, a call forgotten."""
    node, source = place.node, place.source
    assert isinstance(node, ast.Call)
    name = last_name(node.func)
    if (sister := _SISTERS.get(name)) and (isinstance(node.func, ast.Attribute) or name in _OF_NAMES):
        end = source.end(node.func)
        yield Edit("sister function", end - len(name.encode()), end, sister)
    yield from _forgotten_calls(place, node, name)
    yield from _arguments(place, node, name)
    if name == "range" and 1 <= len(node.args) <= 2 and not isinstance(node.args[-1], ast.Constant | ast.Starred):
        for step in ("+ 1", "- 1"):
            yield source.replace("loop bound", node.args[-1], f"{source.text(node.args[-1])} {step}")
    if name in ("sorted", "sort") and not any(keyword.arg in ("reverse", None) for keyword in node.keywords):
        end = source.end(node) - 1
        inside = source.content[source.end(node.func) : end].strip()
        comma = "" if inside.endswith((b",", b"(")) else ", "
        yield Edit("reverse order", end, end, f"{comma}reverse=True")


def _forgotten_calls(place: Place, node: ast.Call, name: str) -> Iterator[Edit | None]:
    if isinstance(place.parent, ast.Expr):
        return
    if len(node.args) == 1 and not node.keywords and not isinstance(node.args[0], ast.Starred | ast.GeneratorExp) and name in _COPIES:
        yield place.source.replace("call dropped", node, place.source.text(node.args[0]))
    if isinstance(node.func, ast.Attribute) and not node.args and not node.keywords and name in _DROPPED_METHODS:
        yield place.source.replace("call dropped", node, place.source.text(node.func.value))


def _arguments(place: Place, node: ast.Call, name: str) -> Iterator[Edit | None]:
    source = place.source
    plain = (ast.Name, ast.Attribute, ast.Subscript, ast.Constant)
    if len(node.args) >= 2 and name not in _NOT_EXCHANGED:
        first, second = node.args[:2]
        is_told_apart = source.text(first) != source.text(second) and not (
            isinstance(first, ast.Constant) and isinstance(second, ast.Constant)
        )
        if isinstance(first, plain) and isinstance(second, plain) and is_told_apart:
            yield source.exchange("arguments exchanged", first, second)
    if len(node.args) == 2 and not node.keywords and name in ("get", "pop", "next") and not isinstance(node.args[1], ast.Starred):
        yield Edit("default dropped", source.end(node.args[0]), source.end(node.args[1]), "")
    for keyword in node.keywords:
        others = [*node.args, *(one for one in node.keywords if one is not keyword)]
        before = [one for one in others if source.end(one) <= source.start(keyword)]
        if keyword.arg in _DROPPED_KEYWORDS and before:
            yield Edit("argument dropped", max(map(source.end, before)), source.end(keyword), "")


def choices(place: Place) -> Iterator[Edit | None]:
    """The two answers of a conditional expression, exchanged."""
    node = place.node
    assert isinstance(node, ast.IfExp)
    if place.source.text(node.body) != place.source.text(node.orelse):
        yield place.source.exchange("choice exchanged", node.body, node.orelse)


def filters(place: Place) -> Iterator[Edit | None]:
    """The condition of a comprehension, forgotten."""
    node, source = place.node, place.source
    assert isinstance(node, ast.comprehension)
    if len(node.ifs) == 1:
        start = source.content.rfind(b"if", source.end(node.iter), source.start(node.ifs[0]))
        between = source.content[start + 2 : source.start(node.ifs[0])]
        closing = between.count(b"(") * b")"
        end = source.end(node.ifs[0])
        if start >= 0 and b"#" not in between and source.content[end:].lstrip().startswith(closing):
            while closing:
                end, closing = source.content.index(b")", end) + 1, closing[1:]
            while source.content[start - 1 : start].isspace():
                start -= 1
            yield Edit("filter dropped", start, end, "")


def negated(place: Place) -> Iterator[Edit | None]:
    """What decides, taken for its opposite."""
    if place.is_condition and isinstance(place.node, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
        yield place.source.replace("condition negated", place.node, f"not {place.source.text(place.node)}")


EXPRESSIONS: dict[type[ast.AST], Callable[[Place], Iterator[Edit | None]]] = {
    ast.Compare: comparisons,
    ast.BinOp: arithmetic,
    ast.BoolOp: conditions,
    ast.UnaryOp: negations,
    ast.Constant: constants,
    ast.Subscript: subscripts,
    ast.Call: calls,
    ast.IfExp: choices,
    ast.comprehension: filters,
}
"""By the kind of node; `negated` goes with any."""


def last_name(node: ast.AST) -> str:
    """`get` of d.get; '' of what is no name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_no_number(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_no_number(node.left) or _is_no_number(node.right)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str | bytes)
    return isinstance(node, _NO_NUMBERS) or (
        isinstance(node, ast.Call) and last_name(node.func) in {*_TEXT_METHODS, "str", "list", "tuple"}
    )


def _is_position(name: str) -> bool:
    """Whether a variable of this name is a number by custom, not a key."""
    words = name.lower().strip("_").split("_")
    return name in ("i", "j", "k", "n", "m", "lo", "hi") or not {"idx", "index", "pos", "position", "offset", "start", "end"}.isdisjoint(
        words
    )
