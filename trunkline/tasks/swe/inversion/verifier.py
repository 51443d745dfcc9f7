"""The verdict on tests that an agent wrote: they must notice a fault, and nothing else. Owns the order and the evidence.

    diff ─► test files, nothing else of it ─► screen ─► each tree, in a random order, in a sealed process of its own:

        before the change   a test fails in its body, by an assert or an exception that says more than that a name is missing
        after it            every test passes (a skip is no failure), among them that one
        wrong versions      at least half of them make a test fail

Sources that the change touches are laid in other words on each tree (disguise.py), and the tests do not know how many trees there are
or which one they are on. What they report can be forged, by themselves: but to be paid, a forged report has to say the right thing of
every tree, and for that they have to find out what its code does. Nothing is believed of a process that takes too long or spends a limit
(VerifierError): that is no verdict.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trunkline.errors import SandboxError, TaskError, VerifierError
from trunkline.tasks.swe.inversion.parts import Parts, Tree, draw_trees, load_parts
from trunkline.tasks.swe.inversion.screen import Screen
from trunkline.tasks.swe.outcomes import TestRun
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.run_tests import run_sheet
from trunkline.tasks.swe.sheets import plain_sheet
from trunkline.tasks.swe.task import CodeTask, is_test_module
from trunkline.tasks.swe.tree import blocks, is_inside, lay_tree, leads_through_link
from trunkline.types import FileChange, Reward, Work

MOST_FILES = 5
MOST_BYTES = 2**16
"""Of all tests that are written."""
_NAME_IS_MISSING = frozenset(
    {"ImportError", "ModuleNotFoundError", "AttributeError", "NameError", "UnboundLocalError", "SyntaxError", "IndentationError"}
)
"""Exceptions that a test also ends by if it asks for what is not there: they show no behaviour."""
_MAX_EVIDENCE = 500
_MOST_NAMED = 3


@dataclass(frozen=True)
class Submitted:
    """What is judged of a diff."""

    tests: dict[str, str]
    """Path in the workspace to text."""
    dropped: tuple[str, ...]
    """Paths of the diff that are not."""
    fault: str
    """Why none is judged; ''."""


@dataclass(frozen=True)
class InversionVerifier:
    """Implements `trunkline.protocols.Verifier` for one task. Holds nothing of an attempt.

    >>> await InversionVerifier.load(task, place).verify(Work("done", (FileChange("tests/test_coupon.py", "file", 0o644, b"..."),)))
    (Reward("outcome", 1.0, "1 of 2 tests fails on 3 trees without the change, and all pass on 3 with it; 2 of 3 wrong ..."),)
    """

    task: CodeTask
    """What was to be done."""
    parts: Parts
    """The change that the tests are to notice."""
    screen: Screen
    """What they may use."""
    place: VerdictPlace
    """Where processes run."""

    @classmethod
    def load(cls, task: CodeTask, place: VerdictPlace) -> InversionVerifier:
        """Of a task's folder. Raises TaskError."""
        parts = load_parts(task)
        return cls(task, parts, Screen.of(task, modules=parts.settings.modules, features=parts.settings.features), place)

    async def verify(self, work: Work) -> tuple[Reward, ...]:
        """See `trunkline.protocols.Verifier`."""
        return (await self.judge(work.changes),)

    async def judge(self, changes: Sequence[FileChange], *, rng: random.Random | None = None) -> Reward:
        """Judges a diff. `rng` draws the words and the order of the trees; None: from the system's entropy.

        Raises VerifierError if there is no verdict.
        """
        rng = rng or random.Random(secrets.randbits(256))
        try:
            submitted = await asyncio.to_thread(submitted_tests, self.task, changes)
            fault = submitted.fault or "; ".join([*self.screen.faults(submitted.tests)][:_MOST_NAMED])
            found = _Found(submitted.tests)
            if not fault:
                trees = await asyncio.to_thread(draw_trees, self.task, self.parts, rng)
                fault = await self._run(trees, found)
        except (TaskError, SandboxError, OSError) as error:
            raise VerifierError(f"no verdict on {self.task.task_id}: {error}") from error
        words = fault or found.in_words()
        if submitted.dropped:
            words += f"; {len(submitted.dropped)} files of the diff are no tests: {', '.join(submitted.dropped[:_MOST_NAMED])}"
        return Reward("outcome", 0.0 if fault else 1.0, _plain(words))

    async def _run(self, trees: Sequence[Tree], found: _Found) -> str:
        """Why the tests earn 0; '' if they do not. The first tree that settles it is the last one that is run."""
        for tree in trees:
            with tempfile.TemporaryDirectory(prefix="trunkline-tree-") as folder:
                place = Path(folder) / "tree"
                await asyncio.to_thread(
                    lay_tree, place, pristine=self.task.workspace, changes=tree.changes, hidden=self.task.hidden_tests, without=found.tests
                )
                settings = self.task.settings
                sheet = plain_sheet(found.tests)
                run = await run_sheet(self.place, sheet, trees=(place,), settings=settings, timeout_s=settings.timeout_s)
            if fault := found.note(tree, run):
                return fault
        return found.too_few()


@dataclass
class _Found:
    """What the trees have shown so far."""

    tests: dict[str, str]
    turning: set[str] | None = None
    """Tests that failed on all trees without the change, and passed on all with it; None: not known yet."""
    names: set[str] = field(default_factory=set)
    num_trees: dict[str, int] = field(default_factory=lambda: {"before": 0, "right": 0, "wrong": 0})
    num_noticed: int = 0

    def note(self, tree: Tree, run: TestRun) -> str:
        """Takes in one run. Why the tests earn 0, if that is settled."""
        self.num_trees[tree.role] += 1
        if run.complaint:
            return f"what the tests report cannot be read: {run.complaint}"
        self.names |= set(run.outcomes)
        if tree.role == "wrong":
            self.num_noticed += bool(_failing(run))
            return ""
        if run.faults:
            file, words = next(iter(run.faults.items()))
            where = "without the change" if tree.role == "before" else "with the change"
            return f"{file} cannot be loaded {where}: {words}"
        if tree.role == "right":
            if bad := [name for name, outcome in run.outcomes.items() if outcome.outcome not in ("passed", "skipped", "xfailed")]:
                return f"{_function(bad[0])} {run.outcomes[bad[0]].outcome} with the change, where every test must pass"
            return self._turn(set(run.passed), "no test passes with the change")
        return self._turn(_failing(run), "no test fails in its body without the change, by an assert or by what the code raises")

    def too_few(self) -> str:
        """Why wrong versions count against the tests; '' if enough of them were noticed."""
        num_wrong = self.num_trees["wrong"]
        if 2 * self.num_noticed >= num_wrong:
            return ""
        return f"only {self.num_noticed} of {num_wrong} wrong versions of the change are noticed"

    def in_words(self) -> str:
        trees = self.num_trees
        return (
            f"{len(self.turning or ())} of {len(self.names)} tests fail on {trees['before']} trees without the change, and pass on "
            f"{trees['right']} with it, as do the others; {self.num_noticed} of {trees['wrong']} wrong versions of it are noticed"
        )

    def _turn(self, tests: Collection[str], words: str) -> str:
        if not tests:
            return words
        self.turning = set(tests) if self.turning is None else self.turning & set(tests)
        return "" if self.turning else "no test fails on every tree without the change and passes on every one with it"


def submitted_tests(task: CodeTask, changes: Sequence[FileChange]) -> Submitted:
    """Test modules that a diff writes; whatever else it does is left out."""
    tests: dict[str, str] = {}
    dropped, fault = [], ""
    for change in changes:
        if change.kind != "file" or not _may_be_test(task, change.path):
            if change.kind != "directory":
                dropped.append(change.path)
            continue
        try:
            tests[change.path] = change.content.decode()
        except UnicodeDecodeError:
            fault = f"{change.path} is not UTF-8"
    num_bytes = sum(map(len, tests.values()))
    if not tests:
        fault = fault or "no test_*.py or *_test.py was written"
    elif len(tests) > MOST_FILES or num_bytes > MOST_BYTES:
        fault = f"{len(tests)} test files with {num_bytes:,} characters were written, at most {MOST_FILES} and {MOST_BYTES:,} are judged"
    return Submitted(tests, tuple(dropped), fault)


def _may_be_test(task: CodeTask, path: str) -> bool:
    tree = task.workspace
    if not is_inside(path) or not path.isprintable() or not is_test_module(path) or not path.isascii():
        return False
    is_taken = (tree / path).is_dir() or (tree / path).is_symlink()
    return not (is_taken or leads_through_link(tree, path) or blocks(tree, path))


def _failing(run: TestRun) -> set[str]:
    """Tests that show a behaviour by failing."""
    ended = run.outcomes.items()
    return {name for name, one in ended if one.outcome == "failed" and (one.is_assertion or one.error not in _NAME_IS_MISSING)}


def _function(name: str) -> str:
    return name.partition("[")[0]


def _plain(words: str) -> str:
    """One line of printable characters, cut: some of them come out of the process that is judged."""
    words = " ".join(words[: 4 * _MAX_EVIDENCE].split())
    words = "".join(character if character.isprintable() else "?" for character in words)
    return words if len(words) <= _MAX_EVIDENCE else f"{words[: _MAX_EVIDENCE - 1]}…"
