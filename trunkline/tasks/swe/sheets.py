"""Sheets: the judged tests in copies, some of them changed so that a right solution fails. Owns what is expected of each copy.

    test files + probes ─► for each test that must turn: one place, several values there, one of them true ─► copies under random names
                       └─► every other test once ─► canaries: arithmetic that must pass and arithmetic that must fail ─► Sheet

Who forges a report has to say which copies pass: that is, which of the values is the true one. The copies of a test differ in nothing
else; the true value is no more frequent than another, and the smallest as often as the largest. Sheets of one verdict are drawn apart
and run apart.

Odds of a blind guess, with c copies, s sheets and n tests that must turn and are masked: c^-s a test, c^-(s n) a task. With four copies
these are 1 in 16 a test on the two sheets of a task that has held-out inputs (which ask for answers that no guess gives), and 1 in 256
on the four of another; with two such tests 1 in 65,536. A test that is not masked adds nothing. A guess that is not blind (a word that
makes sense, a round number) is better than that: no sheet can hide an answer that is known.
"""

from __future__ import annotations

import ast
import random
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from trunkline.tasks.swe.copies import Mentions, Names, TestFile, open_classes, read_test_file, rename, rewrite
from trunkline.tasks.swe.dealing import deal, hides_answer
from trunkline.tasks.swe.perturb import Probe
from trunkline.tasks.swe.syntax import parse

_MOST_OTHERS = 4
"""Tests that pass before and after, of which a sheet has a changed copy too."""


@dataclass(frozen=True)
class Expected:
    """What a right solution does with one function of a sheet."""

    original: str
    """'file::qualname' of what it is a copy of; what a canary is."""
    outcome: Literal["passed", "failed"]
    """Of each of its judged tests; of a changed copy, of those that `fails` names."""
    is_canary: bool = False
    """It tests arithmetic."""
    fails: tuple[str, ...] = ()
    """Of a changed copy: the endings '[...]' (or '') of its tests that fail; () for all."""
    probe: Probe | None = None
    """How it was changed."""


@dataclass(frozen=True)
class Sheet:
    """Test files for one run."""

    files: Mapping[str, str]
    """Path in the workspace to text."""
    arguments: tuple[str, ...]
    """The files to run, in this order."""
    expected: Mapping[str, Expected]
    """By the name 'file::qualname' of a function in this sheet, without parameters; empty if nothing is."""
    unjudged: frozenset[str] = frozenset()
    """Functions, classes and files of this sheet that may report tests of which nothing is expected."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """The file of the task that a file of this sheet is made of."""
    notes: tuple[str, ...] = ()
    """What could not be hidden or copied, in words."""


def make_sheets(
    sources: Mapping[str, str],
    *,
    judged: Collection[str],
    to_probe: Collection[str],
    probes: Sequence[Probe],
    rng: random.Random,
    num_sheets: int = 2,
    copies: int = 4,
) -> tuple[Sheet, ...]:
    """Sheets with every judged test.

    Args:
        sources: Test files, path in the workspace to text.
        judged: Tests that must pass, as pytest names them, with parameters.
        to_probe: Functions ('file::qualname') that have changed copies in each sheet: those of the tests that must turn. One for which
            there is no probe is there once, like every other one.
        probes: What may be changed, as calibrated. Those of other functions are used now and then.
        rng: Draws names, places and order; of a verdict it must not be foreseeable.
        num_sheets: How many.
        copies: Of a function with probes, in each sheet; at least 2.

    Raises ValueError if probes or judged tests do not belong to these sources.
    """
    assert copies >= 2, "one copy cannot be both true and changed"
    if foreign := {name for name in judged if name.partition("::")[0] not in sources}:
        raise ValueError(f"{min(foreign)} is judged, but its file is not among {sorted(sources)}; calibrate again")
    if not judged:
        raise ValueError("no test is judged, so nothing can be told apart; calibrate again")
    by_function: dict[str, list[Probe]] = defaultdict(list)
    for probe in probes:
        by_function[probe.function].append(probe)
    functions = dict.fromkeys(function_of(name) for name in judged)
    others = sorted(name for name in functions if name not in to_probe and by_function[name])
    used: dict[str, set[int]] = defaultdict(set)
    sheets, mentions = [], Mentions.of(sources)
    for _ in range(num_sheets):
        writer = _Writer(sources, mentions, rng)
        with_pair = rng.sample(others, min(_MOST_OTHERS, len(others)))
        plan: dict[str, list[Probe | None]] = {}
        for name in functions:
            count = copies if name in to_probe else 2 if name in with_pair else 1
            path, _, qualname = name.partition("::")
            file = read_test_file(path, sources[path])
            plan[name] = deal(by_function[name], file.functions.get(qualname) if file else None, count, used[name], rng)
        writer.write(plan)
        writer.add_canaries()
        sheets.append(writer.sheet())
    return tuple(sheets)


def probe_sheet(sources: Mapping[str, str], probes: Sequence[Probe]) -> Sheet:
    """Every probe once and no true copy, to see which of them a solution fails."""
    writer = _Writer(sources, Mentions.of(sources), random.Random(0))
    plan: dict[str, list[Probe | None]] = defaultdict(list)
    for probe in probes:
        plan[probe.function].append(probe)
    writer.write(plan)
    return writer.sheet()


def masked(sources: Mapping[str, str], probes: Sequence[Probe]) -> frozenset[str]:
    """Functions ('file::qualname') of whose copies nothing but the answer tells the true one.

    Not: one that is there once; one whose name is mentioned, as one copy keeps it; one that is changed only where the true value stands
    out (0, None, ''), in the exception that it expects, or in the sense of an assert, which work that fails every comparison survives.
    """
    by_function: dict[str, list[Probe]] = defaultdict(list)
    for probe in probes:
        by_function[probe.function].append(probe)
    mentions = Mentions.of(sources)
    return frozenset(
        name for name, own in by_function.items() if hides_answer(own) and not mentions.names_function(name.partition("::")[2])
    )


def plain_sheet(sources: Mapping[str, str], arguments: Sequence[str] | None = None) -> Sheet:
    """The files as they are, to see what passes; `arguments` are those to run, by default all."""
    return Sheet(dict(sources), tuple(sources if arguments is None else arguments), {}, origins={path: path for path in sources})


def split_test(name: str) -> tuple[str, str]:
    """('file::qualname', '[parameters]' or '') of a test as pytest names it."""
    start = name.find("[", max(0, name.find("::")))
    return (name, "") if start < 0 else (name[:start], name[start:])


def function_of(name: str) -> str:
    """'file::qualname' of a test as pytest names it."""
    return split_test(name)[0]


@dataclass
class _Part:
    """A file of the sheet while it is written."""

    path: str
    """In the sheet."""
    module: ast.Module
    """With copies."""
    like: str | None
    """A judged function of the module, whose name shows what makes a function a test here; None if all are methods."""


@dataclass
class _Writer:
    sources: Mapping[str, str]
    mentions: Mentions
    rng: random.Random
    parts: list[_Part] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)
    expected: dict[str, Expected] = field(default_factory=dict)
    unjudged: set[str] = field(default_factory=set)
    origins: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = Names(self.rng)

    def write(self, plan: Mapping[str, Sequence[Probe | None]]) -> None:
        """All files that the plan ('file::qualname' to entries) speaks of, and those that they need."""
        by_file: dict[str, dict[str, Sequence[Probe | None]]] = defaultdict(dict)
        for name, entries in plan.items():
            path, _, qualname = name.partition("::")
            by_file[path][qualname] = entries
        for path, text in self.sources.items():
            stem = PurePosixPath(path).stem
            if path in by_file:
                file = read_test_file(path, text)
                if file is None:
                    self._keep(path, text, by_file[path])
                else:
                    self._copy(file, by_file[path], is_named=self.mentions.names_module(stem))
            elif self.mentions.names_module(stem):
                self.files[path] = text

    def add_canaries(self) -> None:
        """One that passes and one that fails in a module of their own, and the same in one of the files."""
        like = next((part.like for part in self.parts if part.like), "test")
        own = str(PurePosixPath(self.rng.choice(self.arguments)).with_name(f"test_{self.names.fresh()}.py"))
        self.files[own] = ast.unparse(self._with_canaries(own, ast.Module([], []), like)) + "\n"
        self.arguments.insert(self.rng.randint(0, len(self.arguments)), own)
        hosts = [part for part in self.parts if "pytestmark" not in self.sources[self.origins[part.path]]]  # a mark could ask for arguments
        if hosts:
            host = self.rng.choice(hosts)
            host.module = self._with_canaries(host.path, host.module, host.like or like)

    def sheet(self) -> Sheet:
        """What was written."""
        files = self.files | {part.path: ast.unparse(part.module) + "\n" for part in self.parts}
        arguments = tuple(self.arguments)
        return Sheet(files, arguments, self.expected, frozenset(self.unjudged), self.origins, tuple(self.notes))

    def _keep(self, path: str, text: str, plan: Mapping[str, object]) -> None:
        """A file that cannot be written again."""
        self.files[path] = text
        self.arguments.append(path)
        self.origins[path] = path
        self.unjudged.add(path)
        self.expected |= {f"{path}::{name}": Expected(f"{path}::{name}", "passed") for name in plan}
        self.notes.append(f"{path} cannot be copied: it does not parse, or not into the same text; its tests are there once, as they are")

    def _copy(self, file: TestFile, plan: Mapping[str, Sequence[Probe | None]], *, is_named: bool) -> None:
        path = file.path if is_named else str(PurePosixPath(file.path).with_name(f"test_{self.names.fresh()}.py"))
        copied = {name: entries for name, entries in plan.items() if name in file.functions}
        elsewhere = [name for name in plan if name not in copied]
        rewritten = rewrite(file, copied, kept=elsewhere, needs=self.mentions.names_function, names=self.names)
        self.parts.append(_Part(path, rewritten.module, next((name for name in copied if "::" not in name), None)))
        self.arguments.append(path)
        self.origins[path] = file.path
        for name, original, probe in rewritten.copies:
            self.expected[f"{path}::{name}"] = Expected(
                f"{file.path}::{original}", "failed" if probe else "passed", fails=probe.fails if probe else (), probe=probe
            )
        for name in elsewhere:
            if None in plan[name]:
                self.expected[f"{path}::{name}"] = Expected(f"{file.path}::{name}", "passed")
        self.unjudged |= {f"{path}::{name}" for name in (*rewritten.left, *open_classes(file))}
        self._note(file, path, copied, elsewhere)

    def _note(self, file: TestFile, path: str, copied: Collection[str], elsewhere: Collection[str]) -> None:
        if path == file.path:
            self.notes.append(f"{path} keeps its name, which a test file mentions")
        named = sorted(name for name in copied if self.mentions.names_function(name))
        if named:
            self.notes.append(f"{file.path}: {', '.join(named)} keep their names, which a test file mentions or a class inherits")
        if elsewhere:
            self.notes.append(f"{file.path}: {', '.join(sorted(elsewhere))} are defined elsewhere (inherited, generated) and not copied")

    def _with_canaries(self, path: str, module: ast.Module, like: str) -> ast.Module:
        """With one that passes and one that fails, after the imports."""
        body = list(module.body)
        first = max((place + 1 for place, node in enumerate(body) if isinstance(node, ast.Import | ast.ImportFrom)), default=len(body))
        outcomes: list[Literal["passed", "failed"]] = ["passed", "failed"]
        self.rng.shuffle(outcomes)
        for outcome in outcomes:
            name = rename(like, self.names.fresh())
            body.insert(self.rng.randint(first, len(body)), _canary(name, self.rng, is_true=outcome == "passed"))
            self.expected[f"{path}::{name}"] = Expected("a canary", outcome, is_canary=True)
        return ast.fix_missing_locations(ast.Module(body, []))


def _canary(name: str, rng: random.Random, *, is_true: bool) -> ast.stmt:
    left, right = rng.randint(100, 999), rng.randint(100, 999)
    product = left * right + (0 if is_true else rng.choice((-1, 1)) * rng.randint(1, 99))
    return parse(f"def {name}():\n    left, right = ({left}, {right})\n    assert left * right == {product}\n").body[0]
