"""Where a test function can be changed so that a right solution fails it. Owns the walk that numbers the places; changes nothing.

The number of a place is its order in one fixed walk: the tables of the function's parametrize decorators, its defaults, its body. It
holds whatever the function is called, and whoever parses it again.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from trunkline.tasks.swe.nearby import is_codec

Function = ast.FunctionDef | ast.AsyncFunctionDef
SiteKind = Literal["constant", "raises", "negation"]
Region = Literal["assert", "body", "table"]
Beside = Literal["", "beside", "exact"]
"""Whether a node stands beside the value under test; exact: it must equal it, so that no other value passes."""

OPPOSITES = {
    "assertEqual": "assertNotEqual", "assertTrue": "assertFalse", "assertIs": "assertIsNot", "assertIsNone": "assertIsNotNone",
    "assertIn": "assertNotIn", "assertIsInstance": "assertNotIsInstance", "assertLess": "assertGreaterEqual",
    "assertGreater": "assertLessEqual", "assertRegex": "assertNotRegex", "assertAlmostEqual": "assertNotAlmostEqual",
}  # fmt: skip
OPPOSITES |= {opposite: name for name, opposite in OPPOSITES.items()}

_RAISES = ("raises", "assertRaises", "assertRaisesRegex")
_EQUALITIES = frozenset(
    [f"assert{kind}Equal" for kind in ("", "List", "Tuple", "Dict", "Set", "Sequence", "Count", "MultiLine")]
    + ["assertIs", "assert_called_with", "assert_called_once_with", "assert_awaited_with", "assert_awaited_once_with"]
)
_EXACT_RANK, _BESIDE_RANK = 0, 1
_RANKS: dict[Region, int] = {"assert": 2, "body": 3, "table": 4}
_RAISES_RANK, _NEGATION_RANK = 5, 6
_NOT_WALKED = ("annotation", "returns", "decorator_list", "type_params")
_NO_ANSWERS = frozenset({"encoding", "errors", "msg"})


@dataclass(frozen=True)
class Slot:
    """Where a node hangs in its tree."""

    parent: ast.AST
    """What it is part of."""
    name: str
    """The parent's field."""
    index: int | None = None
    """In that field, if it is a list."""

    @property
    def node(self) -> object:
        """What hangs there."""
        value = getattr(self.parent, self.name, None)
        return value if self.index is None or value is None else value[self.index]

    def put(self, node: ast.AST) -> None:
        """Hangs something else there."""
        if self.index is None:
            setattr(self.parent, self.name, node)
        else:
            getattr(self.parent, self.name)[self.index] = node


@dataclass(frozen=True)
class Site:
    """One place of a function."""

    kind: SiteKind
    """What can be changed: a constant, the exception that is expected, the sense of an assert."""
    slot: Slot
    """Where."""
    rank: int
    """Lower is better."""
    is_expected: bool
    """A constant beside the value under test rather than an input of it: any right solution fails if it is another."""
    is_exact: bool = False
    """It must equal the value under test: any right solution fails whatever else it is."""


def find_sites(function: Function) -> list[Site]:
    """All places, in the order that numbers them."""
    walk = _Walk(_expected_names(function))
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and last_name(decorator.func) == "parametrize":
            walk.table(decorator)
    walk.all_of(_slots(function.args, "defaults", "kw_defaults"), "body")
    walk.all_of(_slots(function, "body"), "body")
    return walk.sites


def last_name(node: ast.AST) -> str:
    """`raises` of pytest.raises; '' of what is no name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@dataclass
class _Walk:
    """The walk. `direct` says whether only brackets, a sign or approx() stand between a node and what it is compared with."""

    expected: Mapping[str, Beside]
    sites: list[Site] = field(default_factory=list)

    def all_of(self, slots: Iterator[Slot], region: Region, *, direct: Beside = "") -> None:
        for slot in slots:
            self.visit(slot, region, direct)

    def visit(self, slot: Slot, region: Region, direct: Beside = "") -> None:
        node = slot.node
        if not isinstance(node, ast.AST) or slot.name in _NOT_WALKED:
            return
        if isinstance(node, ast.Constant):
            self._constant(slot, node, region, direct)
        elif isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
            if direct and not _has_items(node):
                self._found(slot, region, direct)
            self.all_of(_slots(node), region, direct=direct)
        elif isinstance(node, ast.UnaryOp | ast.Starred) and not isinstance(getattr(node, "op", None), ast.Not):
            self.all_of(_slots(node), region, direct=direct)
        elif isinstance(node, ast.Call):
            self._call(slot, node, region, direct)
        elif isinstance(node, ast.stmt):
            self._statement(slot, node, region)
        elif not isinstance(node, ast.JoinedStr):
            self.all_of(_slots(node), region)

    def table(self, decorator: ast.Call) -> None:
        """The rows of @pytest.mark.parametrize(names, rows)."""
        slots = dict(zip(("argnames", "argvalues"), _slots(decorator, "args"), strict=False))
        slots |= {keyword.arg: Slot(keyword, "value") for keyword in decorator.keywords if keyword.arg in ("argnames", "argvalues")}
        if len(slots) == 2 and (names := _argument_names(slots["argnames"].node)) is not None:
            self._columns(names, slots["argvalues"], "table")

    def _constant(self, slot: Slot, node: ast.Constant, region: Region, direct: Beside) -> None:
        if isinstance(node.value, bool | int | float | str | bytes | None) and not is_codec(node.value):
            self._found(slot, region, direct)

    def _found(self, slot: Slot, region: Region, direct: Beside) -> None:
        rank = {"exact": _EXACT_RANK, "beside": _BESIDE_RANK}.get(direct, _RANKS[region])
        self.sites.append(Site("constant", slot, rank, bool(direct), direct == "exact"))

    def _statement(self, slot: Slot, node: ast.stmt, region: Region) -> None:
        if isinstance(node, ast.Assert):
            self.sites.append(Site("negation", slot, _NEGATION_RANK, False))
            self._asserted(Slot(node, "test"))
        elif isinstance(node, ast.For | ast.AsyncFor):
            target = node.target
            names = [last_name(one) for one in target.elts] if isinstance(target, ast.Tuple | ast.List) else last_name(target)
            self._columns(names, Slot(node, "iter"), region)
            self.all_of(_slots(node, "body", "orelse"), region)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named = targets[0] if len(targets) == 1 else None
            self.visit(Slot(node, "value"), region, self.expected.get(named.id, "") if isinstance(named, ast.Name) else "")
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):  # else a docstring
            self.all_of(_slots(node), region)

    def _asserted(self, slot: Slot, *, is_firm: bool = True) -> None:
        """What must be true; if not `is_firm`, something else may be true instead."""
        node = slot.node
        if isinstance(node, ast.Compare):
            self.all_of(_slots(node, "left", "comparators"), "assert", direct=_kind_of_comparison(node) if is_firm else "beside")
        elif isinstance(node, ast.BoolOp) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)):
            is_and = isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And)
            for one in _slots(node, "values", "operand"):
                self._asserted(one, is_firm=is_firm and is_and)
        else:
            self.visit(slot, "assert")

    def _call(self, slot: Slot, node: ast.Call, region: Region, direct: Beside) -> None:
        name = last_name(node.func)
        arguments = list(_slots(node, "args"))
        if name in _RAISES:
            if arguments:
                self.sites.append(Site("raises", arguments[0], _RAISES_RANK, False))
            for one in arguments[1:]:
                self.visit(one, "assert", "beside" if name == "assertRaisesRegex" else "")
            self._keywords(node, "assert", direct=("match",))
        elif name.startswith("assert"):
            if name in OPPOSITES and isinstance(slot.parent, ast.Expr):
                self.sites.append(Site("negation", slot, _NEGATION_RANK, False))
            is_mock = name.startswith("assert_")  # assert_called_with(...)
            kind: Beside = "exact" if name in _EQUALITIES else "beside"
            self.all_of(iter(arguments if is_mock else arguments[:2]), "assert", direct=kind)  # a third one is the message
            self._keywords(node, "assert", direct=[keyword.arg for keyword in node.keywords] if is_mock else (), kind=kind)
        else:
            self.all_of(_slots(node, "func"), region)
            if name not in ("encode", "decode"):
                for index, one in enumerate(arguments):
                    self.visit(one, region, "beside" if direct and name == "approx" and index == 0 else "")
            self._keywords(node, region)

    def _keywords(self, node: ast.Call, region: Region, direct: tuple[str, ...] | list[str | None] = (), kind: Beside = "beside") -> None:
        for keyword in node.keywords:
            if keyword.arg not in _NO_ANSWERS:
                self.visit(Slot(keyword, "value"), region, kind if keyword.arg in direct else "")

    def _columns(self, names: str | list[str], rows: Slot, region: Region) -> None:
        """Literal rows that names take their values from, in a loop or a parametrize table."""
        if not isinstance(rows.node, ast.List | ast.Tuple):
            self.visit(rows, region)
            return
        for row in _slots(rows.node, "elts"):
            node = row.node
            if isinstance(node, ast.Call) and last_name(node.func) == "param":
                cells = list(_slots(node, "args"))
            elif isinstance(names, list) and isinstance(node, ast.List | ast.Tuple):
                cells = list(_slots(node, "elts"))
            else:
                cells = [row]
            columns = names if isinstance(names, list) else [names]
            for index, cell in enumerate(cells):
                self.visit(cell, region, self.expected.get(columns[index], "") if len(cells) == len(columns) else "")


def _slots(node: ast.AST, *names: str) -> Iterator[Slot]:
    """Where something hangs in these fields of a node, or in all."""
    for name in names or node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            yield from (Slot(node, name, index) for index in range(len(value)))
        elif value is not None:
            yield Slot(node, name)


def _has_items(node: ast.List | ast.Tuple | ast.Set | ast.Dict) -> bool:
    return bool(node.keys if isinstance(node, ast.Dict) else node.elts)


def _kind_of_comparison(node: ast.Compare) -> Beside:
    return "exact" if all(isinstance(operator, ast.Eq | ast.Is) for operator in node.ops) else "beside"


def _expected_names(function: Function) -> dict[str, Beside]:
    """Names that stand directly beside what is compared in an assert; exact: they stand nowhere else."""
    uses: dict[Beside, Counter[str]] = {"exact": Counter(), "beside": Counter()}
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            firm = set(map(id, _firm(node.test)))
            for compared in ast.walk(node.test):
                if isinstance(compared, ast.Compare):
                    kind = _kind_of_comparison(compared) if id(compared) in firm else "beside"
                    _count_names([compared.left, *compared.comparators], kind, uses)
        elif isinstance(node, ast.Call):
            name = last_name(node.func)
            if name in _RAISES:
                _count_names([keyword.value for keyword in node.keywords if keyword.arg == "match"], "beside", uses)
            elif name.startswith("assert"):
                kind = "exact" if name in _EQUALITIES else "beside"
                _count_names([*node.args, *(keyword.value for keyword in node.keywords)], kind, uses)
    loads = Counter(node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
    return {name: "exact" if uses["exact"][name] == loads[name] else "beside" for name in uses["exact"] | uses["beside"]}


def _firm(node: ast.expr) -> Iterator[ast.expr]:
    """The parts of an assert that must all be true."""
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        for one in node.values:
            yield from _firm(one)
    else:
        yield node


def _count_names(nodes: list[ast.expr], kind: Beside, uses: dict[Beside, Counter[str]]) -> None:
    for node in nodes:
        if isinstance(node, ast.Name):
            uses[kind][node.id] += 1
        elif isinstance(node, ast.List | ast.Tuple | ast.Set):
            _count_names(node.elts, kind, uses)
        elif isinstance(node, ast.Dict):
            _count_names([*filter(None, node.keys), *node.values], kind, uses)
        elif isinstance(node, ast.UnaryOp):
            _count_names([node.operand], kind, uses)
        elif isinstance(node, ast.Call) and last_name(node.func) == "approx":
            _count_names(node.args[:1], "beside", uses)


def _argument_names(node: object) -> str | list[str] | None:
    """Of a parametrize decorator: 'a', or ['a', 'b'] of "a, b" and of ["a", "b"]; None if they are not written out."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        names = [name.strip() for name in node.value.split(",") if name.strip()]
        return names[0] if len(names) == 1 and "," not in node.value else names
    if isinstance(node, ast.List | ast.Tuple):
        names = [one.value for one in node.elts if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        return names if len(names) == len(node.elts) else None
    return None
