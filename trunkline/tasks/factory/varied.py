"""Examples whose values no test has: the one claim of a test with other inputs, and what the solution makes of them. Owns that change.

    def test_it():                                   copies with other inputs, blind (swe/blind_tests.py), with the solution and without
        assert render("a b") == "<a b>"     ─►           what the solution gives, if it tells something: render("a c") is "<a c>"
                                            ─►       def test_it(): assert render("a c") == "<a c>"      for examples.py to show

A statement that shows the only claim of a test tells what that test looks for. This one shows what is meant, and the answer stays hidden.
"""

from __future__ import annotations

import ast
import asyncio
import copy
import json
import math
import os
import random
import re
import string
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.errors import VerifierError
from trunkline.tasks.factory.asked import find_function
from trunkline.tasks.factory.changed import failing, read_change
from trunkline.tasks.factory.definitions import parsed
from trunkline.tasks.factory.draft import Draft
from trunkline.tasks.swe.blind_checks import BlindFile
from trunkline.tasks.swe.blind_tests import EQUALITIES, blind_files
from trunkline.tasks.swe.expectations import MADE, Function, Origins, loaded
from trunkline.tasks.swe.outcomes import TestRun
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.run_tests import run_sheet
from trunkline.tasks.swe.sheets import plain_sheet
from trunkline.tasks.swe.sites import find_sites, last_name
from trunkline.tasks.swe.syntax import parse_expression
from trunkline.tasks.swe.task import CodeSettings
from trunkline.tasks.swe.tree import lay_tree

_MOST_FUNCTIONS = 6
"""As many as a statement shows."""
_MOST_SINGLE = 4
"""Copies in which one input is another; in the first all are."""
_MOST_CHARACTERS = 300
"""Of what is expected."""


async def varied_tests(draft: Draft, place: VerdictPlace, *, timeout_s: float = 60.0) -> dict[str, str]:
    """Hidden test files by path, with other inputs and answers where a failing function looks at one value, by `==`.

    {} if there is none, or if nothing of it can be varied. Raises SandboxError.
    """
    change = read_change(draft)
    sources = {path: change.tests[path].after for path in failing(draft) if path in change.tests and path.endswith(".py")}
    trials = [trial for path, text in sources.items() for trial in _trials(path, text, failing(draft)[path], draft.name)][:_MOST_FUNCTIONS]
    if not trials:
        return {}
    tests = [test for trial in trials for test in trial.tests()]
    texts = {path: _with_copies(text, [trial for trial in trials if trial.path == path]) for path, text in sources.items()}
    files = blind_files(texts, tests)
    if not files:
        return {}
    try:
        seen = await _seen(draft, place, files, timeout_s)
    except VerifierError:
        return {}
    shown = [(trial, made) for trial in trials if trial.path in files and (made := _settled(trial, files[trial.path], *seen)) is not None]
    return {path: _replaced(sources[path], [one for one in shown if one[0].path == path]) for path in {trial.path for trial, _ in shown}}


@dataclass(frozen=True)
class _Trial:
    """A function with one claim, and copies of it."""

    path: str
    qualname: str
    tree: ast.Module
    """Of the file."""
    function: Function
    """As it is."""
    copies: tuple[Function, ...]
    """The first is the same."""

    def tests(self) -> list[str]:
        """As pytest names them."""
        owner = self.qualname.rpartition("::")[0]
        return [f"{self.path}::{owner}{'::' if owner else ''}{made.name}" for made in self.copies]


def _trials(path: str, text: str, functions: Sequence[str], seed: str) -> Iterator[_Trial]:
    tree = parsed(text)
    if tree is None:
        return
    for qualname in functions:
        function = find_function(tree, qualname)
        if function is None or _has_table(tree, function) or _claim(function) is None:
            continue
        rng = random.Random(f"{seed} {path} {qualname}")
        copies = [function, *_copies(function, rng)]
        for number, made in enumerate(copies):
            copies[number] = copy.deepcopy(made)
            copies[number].name = f"{function.name}_varied_{number}"
        if len(copies) > 1:
            yield _Trial(path, qualname, tree, function, tuple(copies))


def _has_table(tree: ast.Module, function: Function) -> bool:
    """Whether it is one of many tests already, of which an example shows one."""
    owners = [node for node in tree.body if isinstance(node, ast.ClassDef) and function in node.body]
    decorators = [one for node in (function, *owners) for one in node.decorator_list]
    return any(isinstance(one, ast.Call) and last_name(one.func) == "parametrize" for one in decorators)


def _copies(function: Function, rng: random.Random) -> Iterator[Function]:
    """With all inputs others, then with one; what is the same stays the same."""
    places: dict[tuple[type, Any], list[int]] = {}
    for number, site in enumerate(find_sites(function)):
        node = site.slot.node
        if site.kind == "constant" and not site.is_expected and isinstance(node, ast.Constant):
            places.setdefault((type(node.value), node.value), []).append(number)
    others = {value: other for value in places if (other := _other(value[1], rng)) != value[1]}
    for chosen in (list(others), *([one] for one in list(others)[:_MOST_SINGLE] if len(others) > 1)):
        made = copy.deepcopy(function)
        sites = find_sites(made)
        for value in chosen:
            for number in places[value]:
                sites[number].slot.put(ast.Constant(others[value]))
        if chosen:
            yield made


def _other(value: Any, rng: random.Random) -> Any:
    """Of the same look, and far enough from it that nobody comes from one to the other; the same where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or value in (math.inf, -math.inf):
        return value
    if isinstance(value, str):
        return "".join(rng.choice(_letters_like(letter)) for letter in value)
    text = re.sub(r"\d", lambda found: rng.choice("123456789") if found[0] != "0" else "0", repr(value))
    return type(value)(ast.literal_eval(text))


def _letters_like(letter: str) -> str:
    alphabets = (string.ascii_lowercase, string.ascii_uppercase, string.digits)
    return next((alphabet for alphabet in alphabets if letter in alphabet), letter)


def _claim(function: Function) -> tuple[ast.expr, ast.expr] | None:
    """Both sides of its `==`, if it claims one such thing."""
    found = []
    for node in function.body:
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare) and [type(one) for one in node.test.ops] == [ast.Eq]:
            found.append((node.test.left, node.test.comparators[0]))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and last_name(node.value.func) in EQUALITIES:
            found += [(node.value.args[0], node.value.args[1])] if len(node.value.args) > 1 else []
    return found[0] if len(found) == 1 else None


async def _seen(draft: Draft, place: VerdictPlace, files: Mapping[str, BlindFile], timeout_s: float) -> tuple[TestRun, TestRun, TestRun]:
    """With the solution, again, and without it. Raises VerifierError, SandboxError."""
    settings = CodeSettings.model_validate(
        {**draft.environment.settings(), "test_files": draft.test_files, "timeout_s": timeout_s, "workspace": "workspace"}
    )
    sheet = plain_sheet({path: file.text for path, file in files.items()})
    with tempfile.TemporaryDirectory(prefix="trunkline-varied-") as scratch:
        solved, before = Path(scratch) / "solved", Path(scratch) / "before"
        await asyncio.to_thread(lay_tree, solved, pristine=draft.workspace, changes=(*draft.solution, *draft.hidden_tests))
        await asyncio.to_thread(lay_tree, before, pristine=draft.workspace, changes=draft.hidden_tests)
        os.chmod(scratch, 0o755)
        one, again, none = [
            await run_sheet(place, sheet, trees=(tree,), settings=settings, timeout_s=timeout_s) for tree in (solved, solved, before)
        ]
    return one, again, none


def _settled(trial: _Trial, file: BlindFile, solved: TestRun, again: TestRun, before: TestRun) -> Function | None:
    """The first copy whose answer is firm, another than that of the test, and not there before the change."""
    values = [_value(file, solved.seen.get(test, ())) for test in trial.tests()]
    for made, test, value in zip(trial.copies[1:], trial.tests()[1:], values[1:], strict=True):
        lines = solved.seen.get(test, ())
        is_firm = lines == again.seen.get(test, ()) and test in solved.passed & again.passed
        if value is not None and is_firm and value != values[0] and values[0] is not None and lines != before.seen.get(test, ()):
            return _answered(trial, made, value)
    return None


def _value(file: BlindFile, lines: Sequence[str]) -> str | None:
    """The one value that is seen, as code; None if it cannot be written down."""
    if len(lines) != 1:
        return None
    place, told = json.loads(lines[0])
    if file.checks[place].kind != "equal":
        return None
    try:
        text = repr(_literal(told))
    except (ValueError, TypeError):
        return None
    return text if len(text) <= _MOST_CHARACTERS else None


def _literal(told: Any) -> Any:
    """What the observer (programs/observer.py) made plain. Raises ValueError where that is not all of it."""
    if isinstance(told, str) and "0x" in told:
        raise ValueError("an address may stand there")
    if not isinstance(told, list):
        return told
    if len(told) != 2:
        raise ValueError("this is no plain data")
    kind, content = told[0], told[1]
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "dict":
        return {_literal(key): _literal(value) for key, value in content}
    if kind in ("list", "tuple") or (kind == "set" and content):
        return {"list": list, "tuple": tuple, "set": set}[kind](map(_literal, content))
    raise ValueError(f"{kind} is no plain data")


def _answered(trial: _Trial, copied: Function, value: str) -> Function | None:
    """With what is expected written out, whichever side it stands on, and under the test's own name."""
    made = copy.deepcopy(copied)
    sides = _claim(made)
    origins = Origins.of(trial.tree, made)
    ranks = [origins.rank(side) == MADE for side in sides or ()]
    if sides is None or sorted(ranks) != [False, True]:
        return None
    expected = sides[ranks.index(False)]
    made.name = trial.function.name
    _Replacing(expected, parse_expression(value)).visit(made)
    if isinstance(expected, ast.Name) and expected.id not in loaded(made.body):
        made.body = [node for node in made.body if not (isinstance(node, ast.Assign) and _is_name(node.targets, expected.id))]
    return made


def _is_name(targets: Sequence[ast.expr], name: str) -> bool:
    return len(targets) == 1 and isinstance(targets[0], ast.Name) and targets[0].id == name


class _Replacing(ast.NodeTransformer):
    def __init__(self, old: ast.expr, new: ast.expr) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        """One node by identity."""
        return self.new if node is self.old else super().visit(node)


def _with_copies(text: str, trials: Sequence[_Trial]) -> str:
    return _spliced(text, {trial.function: [trial.function, *trial.copies] for trial in trials})


def _replaced(text: str, shown: Sequence[tuple[_Trial, Function]]) -> str:
    return _spliced(text, {trial.function: [made] for trial, made in shown})


def _spliced(text: str, instead: Mapping[Function, Sequence[Function]]) -> str:
    """The text with others where these functions stand."""
    lines = text.splitlines()
    for function in sorted(instead, key=lambda function: -function.lineno):
        first = min([function.lineno, *(one.lineno for one in function.decorator_list)])
        new = "\n\n".join(ast.unparse(ast.fix_missing_locations(one)) for one in instead[function])
        lines[first - 1 : function.end_lineno] = textwrap.indent(new, " " * function.col_offset).splitlines()
    return "\n".join(lines) + "\n"
