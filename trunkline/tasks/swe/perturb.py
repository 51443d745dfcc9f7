"""Probes: changes of one place of a test that make a right solution fail it. Owns which are tried and how one is made; runs nothing.

    test function ─► places (sites.py) ─► candidates, best first ─► calibration runs them ─► places that bite (dealing.py)

What passes a probed test does not compute the answer: it answers whatever the test expects.
"""

from __future__ import annotations

import ast
import random
from collections import defaultdict
from typing import Any

from pydantic import BaseModel, ConfigDict

from trunkline.tasks.swe.nearby import Ladder, ladder
from trunkline.tasks.swe.sites import OPPOSITES, Function, Site, SiteKind, find_sites
from trunkline.tasks.swe.syntax import parse, parse_expression

_MOST_PLACES = 4
"""That may do by themselves, and are tried."""
_MOST_OF_EXACT = 3
"""Changes of a place that are tried where any should do."""
HOLE = "\N{OBJECT REPLACEMENT CHARACTER}"
"""Stands for a value in the name of a test. pytest writes no such character there."""
_EXCEPTIONS = ("ValueError", "KeyError", "TypeError", "IndexError", "AttributeError", "RuntimeError", "LookupError", "OSError")
_NEGATED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.Lt: ast.GtE, ast.Gt: ast.LtE, ast.In: ast.NotIn, ast.Is: ast.IsNot,
}  # fmt: skip
_NEGATED |= {opposite: operator for operator, opposite in _NEGATED.items()}


class Probe(BaseModel):
    """One change of one test function."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    """Path of the test file in the workspace."""
    qualname: str
    """'test_b' or 'TestA::test_b'."""
    site: int
    """Number of the place (sites.py)."""
    kind: SiteKind
    """What is changed."""
    replacement: str
    """Source of what stands there then; '' of a negation, and of a constant that is drawn anew for each sheet."""
    step: int = 0
    """How far from the true value it is on its ladder (nearby.py); 0: there is none."""
    is_expected: bool = False
    """It changes what the result is compared with: any right solution fails, and by assertion. Else an input, or an exception."""
    is_exact: bool = False
    """The result must equal it: any right solution fails whatever else stands there."""
    stands_out: bool = False
    """The true value would be known among others."""
    fails: tuple[str, ...] = ()
    """Which of its tests fail under the solution: '[...]' of a parametrised one (HOLE stands for a drawn value), '' of another;
    () if that was not tried."""

    @property
    def function(self) -> str:
        """'file::qualname'."""
        return f"{self.file}::{self.qualname}"

    @property
    def is_drawn(self) -> bool:
        """Its value is drawn anew for each sheet."""
        return self.kind == "constant" and not self.replacement

    @property
    def fails_by_assertion(self) -> bool:
        """Whether every right solution fails it by assertion. Of a changed input, what it does there may be an exception."""
        return self.is_expected or self.kind == "negation"


def candidate_probes(source: str, *, file: str, qualname: str, rng: random.Random, most: int = 24) -> list[Probe]:
    """Changes that may make a right solution fail a test, best first; [] if there is no such function, or it cannot be copied.

    First constants that the result must equal, then others that it is compared with, inputs inside asserts, other constants, tables.
    Of what the result must equal three values are offered, as any would do; of other places the whole ladder. Last come a constant
    that stands out, the expected exception and the sense of an assert, which show more of what is true.
    """
    function = find_function(source, qualname)
    if function is None or most < 1:
        return []
    sites = sorted(enumerate(find_sites(function)), key=lambda numbered: (numbered[1].rank, rng.random()))
    places: list[list[Probe]] = []
    telling: dict[str, list[Probe]] = defaultdict(list)
    for number, site in sites:
        found = [
            Probe(
                file=file, qualname=qualname, site=number, kind=site.kind, replacement=text, step=step,
                is_expected=site.is_expected, is_exact=site.is_exact, stands_out=stands_out,
            )
            for step, text, stands_out in _replacements(site, rng)
        ]  # fmt: skip
        if site.kind == "constant" and found and not found[0].stands_out:
            places.append(found)
        elif len(telling[site.kind]) < (2 * _MOST_OF_EXACT if site.kind == "constant" and not places else 1):
            telling[site.kind] += found
    last_resorts = [probe for kind in ("negation", "raises", "constant") for probe in telling[kind]]
    spare = last_resorts[: most // 2 if places and most > 1 else most][::-1]
    offers: list[Probe] = []
    for found in places[:_MOST_PLACES]:
        if not offers or len(offers) + len(found) + len(spare) <= most:
            offers += found
    return [*offers[: most - len(spare)], *spare]


def find_function(source: str, qualname: str) -> Function | None:
    """The function of this name in the module's body or in a class's; the last one, as for Python. None if there is none there."""
    try:
        body: list[ast.stmt] = parse(source).body
    except (SyntaxError, ValueError, RecursionError):
        return None
    *classes, name = qualname.split("::")
    for one in classes:
        found = [node for node in body if isinstance(node, ast.ClassDef) and node.name == one]
        if not found:
            return None
        body = found[-1].body
    functions = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name]
    return functions[-1] if functions else None


def perturbed(function: Function, probe: Probe) -> Function:
    """A copy with the change. Raises ValueError if the probe belongs to another function."""
    changed: Function = _clone(function)
    sites = find_sites(changed)
    if probe.site >= len(sites) or sites[probe.site].kind != probe.kind:
        raise ValueError(f"{probe.function} has no {probe.kind} at place {probe.site}; the test has changed, calibrate again")
    site = sites[probe.site]
    if probe.kind == "negation":
        _negate(site)
    else:
        site.slot.put(parse_expression(probe.replacement))
    return changed


def ladder_of(site: Site, rng: random.Random) -> Ladder:
    """Of the constant at this place."""
    node = site.slot.node
    return ladder(node.value if isinstance(node, ast.Constant) else ..., rng, has_sign=isinstance(site.slot.parent, ast.UnaryOp))


def _replacements(site: Site, rng: random.Random) -> list[tuple[int, str, bool]]:
    """Step, source and whether the true value stands out."""
    node = site.slot.node
    if site.kind == "negation":
        return [(0, "", True)]
    if site.kind == "raises":
        known = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)} if isinstance(node, ast.AST) else set()
        # A parent of what is raised would be satisfied by it; which it is, calibration finds out.
        return [(0, name, True) for name in rng.sample([name for name in _EXCEPTIONS if name not in known], _MOST_OF_EXACT)]
    if isinstance(node, ast.Constant):
        found = ladder_of(site, rng)
        rungs = found.rungs
        if site.is_exact or found.stands_out:  # the nearest, where an approximate comparison shows, and one further away
            rungs = rungs[:2] + rng.sample(rungs[2:], min(1, len(rungs) - 2)) if len(rungs) > 2 else rungs
        return [(step, repr(value), found.stands_out) for step, value in rungs]
    brackets = {ast.List: "[{}]", ast.Tuple: "({},)", ast.Dict: "{{{}: 0}}"}
    pattern = next((text for kind, text in brackets.items() if isinstance(node, kind)), None)
    return [(0, pattern.format(number), True) for number in rng.sample(range(4), _MOST_OF_EXACT)] if pattern else []


def _clone(node: Any) -> Any:
    """copy.deepcopy of a syntax tree, in a quarter of its time."""
    if isinstance(node, list):
        return [_clone(one) for one in node]
    return type(node)(**{name: _clone(value) for name, value in vars(node).items()}) if isinstance(node, ast.AST) else node


def _negate(site: Site) -> None:
    node = site.slot.node
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        node.func.attr = OPPOSITES[node.func.attr]
    elif isinstance(node, ast.Assert):
        test = node.test
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            test.ops[0] = _NEGATED[type(test.ops[0])]()
        elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            node.test = test.operand
        else:
            node.test = ast.UnaryOp(ast.Not(), test)
