"""The verdict on what an agent left of a software task. Owns the order of the stages and the evidence; each stage is a file of its own.

    diff ─► allowed files ─► pristine tree + hidden tests ─► blind tests ─► sheets of copies ─► held-out calls ─► 1
                                   └──────────────── the first thing that is not as it must be ────────────────┴─► 0

Blind tests come first: what a later run reads in a sheet can't be handed back to them by way of the kernel (its cache of files).
A process that takes too long or spends a limit gives no verdict (VerifierError): neither 0 nor 1. Two verdicts share nothing.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trunkline.errors import SandboxError, TaskError, VerifierError
from trunkline.tasks.swe.allowed import Dropped, allow_for_task
from trunkline.tasks.swe.blind_checks import differences
from trunkline.tasks.swe.blind_tests import blind_files
from trunkline.tasks.swe.calibration import Calibration
from trunkline.tasks.swe.heldout import compare_work, observe_solution, summary
from trunkline.tasks.swe.outcomes import mismatches
from trunkline.tasks.swe.place import VerdictPlace, oracle_changes
from trunkline.tasks.swe.run_tests import run_sheet
from trunkline.tasks.swe.sheets import function_of, make_sheets, plain_sheet
from trunkline.tasks.swe.task import CodeTask, judged_sources
from trunkline.tasks.swe.tree import lay_tree
from trunkline.types import FileChange, Reward, Work

_NUM_SHEETS = 2
_NUM_SHEETS_ALONE = 4
"""Of a task without held-out calls: who guesses which of four copies of a test is the true one is right on all sheets once in 256 times."""
_MAX_EVIDENCE = 500
_MAX_DROPPED = 160


@dataclass(frozen=True)
class Stage:
    """One step of a verdict."""

    name: str
    """allowed, sheet 1, sheet 2, blind tests, held-out."""
    seconds: float
    """Wall time."""
    words: str
    """What was found."""


@dataclass(frozen=True)
class Verdict:
    """What the work is worth, and why."""

    value: float
    """0 or 1."""
    evidence: str
    """One line that a person can check; of hidden tests it has the names, not their inputs and answers."""
    stages: tuple[Stage, ...]
    """In order; after the first that fails there is none."""


@dataclass
class CodeVerifier:
    """Judges attempts at one task; any number at a time. Holds nothing of an attempt.

    >>> await CodeVerifier(task, calibration, place).verify(Work("done", changes))
    (Reward("outcome", 1.0, "5 tests pass on 2 sheets of copies, ..."),)
    """

    task: CodeTask
    """What was to be done."""
    calibration: Calibration
    """Which tests are judged, and which changed copies fail: of its certificate."""
    place: VerdictPlace
    """Where processes run."""
    oracle: tuple[FileChange, ...] | None = None
    """What the solution changes; None: its script is run at the first verdict."""
    _running: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def verify(self, work: Work) -> tuple[Reward, ...]:
        """See `trunkline.protocols.Verifier`."""
        verdict = await self.judge(work.changes)
        return (Reward("outcome", verdict.value, verdict.evidence),)

    async def judge(self, changes: Sequence[FileChange], *, rng: random.Random | None = None) -> Verdict:
        """Judges a diff. `rng` draws names, copies and calls; None: from the system's entropy, as it must be where it counts.

        Raises VerifierError if there is no verdict.
        """
        judging = _Judging(self.task, self.calibration, self.place, rng or random.Random(secrets.randbits(256)))
        try:
            oracle = await self._solution()
            with tempfile.TemporaryDirectory(prefix="trunkline-verdict-") as folder:
                return await judging.run(Path(folder), changes, oracle)
        except (TaskError, SandboxError, OSError) as error:
            raise VerifierError(f"no verdict on {self.task.task_id}: {error}") from error

    async def _solution(self) -> tuple[FileChange, ...]:
        async with self._running:
            if self.oracle is None:
                self.oracle = await oracle_changes(self.task, self.place)
        return self.oracle


@dataclass
class _Judging:
    """One verdict in the making."""

    task: CodeTask
    calibration: Calibration
    place: VerdictPlace
    rng: random.Random
    stages: list[Stage] = field(default_factory=list)
    dropped: tuple[Dropped, ...] = ()
    found: list[str] = field(default_factory=list)

    async def run(self, folder: Path, changes: Sequence[FileChange], oracle: Sequence[FileChange]) -> Verdict:
        sources = await asyncio.to_thread(judged_sources, self.task)
        await asyncio.to_thread(self._lay, folder, changes, oracle, without=frozenset(sources))
        tested = folder / "tested"
        fault = await self._blind(tested, sources) or await self._sheets(tested, sources) or await self._heldout(folder)
        return Verdict(0.0 if fault else 1.0, self._evidence(fault or "; ".join(self.found)), tuple(self.stages))

    def _lay(self, folder: Path, changes: Sequence[FileChange], oracle: Sequence[FileChange], *, without: frozenset[str]) -> None:
        """The tree of the work with its tests; for held-out calls work and solution without them: answers could be borrowed there."""
        started = time.monotonic()
        task, modules = self.task, self.place.environment.modules
        work, solution = [allow_for_task(task, diff, oracle=oracle, reserved=modules) for diff in (changes, oracle)]
        for name, allowed, hidden in (("solution", solution, None), ("work", work, None), ("tested", work, task.hidden_tests)):
            refused = lay_tree(folder / name, pristine=task.workspace, changes=allowed.kept, hidden=hidden, without=without)
        self.dropped = (*work.dropped, *(Dropped(change.path, "cannot be laid over the workspace") for change in refused))
        self._record("allowed", started, f"{len(work.kept)} files of the diff laid{self._in_words_dropped()}")

    async def _sheets(self, tree: Path, sources: dict[str, str]) -> str:
        """Why the work earns 0; '' if it may earn 1."""
        calibration = self.calibration
        judged = (*calibration.fail_to_pass, *calibration.pass_to_pass)
        sheets = await asyncio.to_thread(
            make_sheets,
            sources,
            judged=judged,
            to_probe={function_of(test) for test in calibration.fail_to_pass},
            probes=calibration.probes,
            rng=self.rng,
            num_sheets=_NUM_SHEETS if self.task.heldout or calibration.blind else _NUM_SHEETS_ALONE,
        )
        for number, sheet in enumerate(sheets, 1):
            started = time.monotonic()
            run = await run_sheet(self.place, sheet, trees=(tree,), settings=self.task.settings, timeout_s=self.task.settings.timeout_s)
            faults = mismatches(sheet, judged, run)
            more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
            fault = f"sheet {number}: {_without_parameters(faults[0], judged)}{more}" if faults else ""
            self._record(f"sheet {number}", started, fault or f"{len(sheet.expected)} copies as they must be")
            if fault:
                return fault
        copies = [expected for sheet in sheets for expected in sheet.expected.values() if not expected.is_canary]
        num_changed = sum(expected.outcome == "failed" for expected in copies)
        self.found.append(f"{len(judged)} tests pass on {len(sheets)} sheets of copies, where {num_changed} changed copies fail")
        return ""

    async def _blind(self, tree: Path, sources: dict[str, str]) -> str:
        """The same tests without their expectations: what they see is compared here."""
        seen = self.calibration.seen
        if not seen:
            return ""
        started = time.monotonic()
        files = await asyncio.to_thread(blind_files, sources, self.calibration.fail_to_pass)
        sheet, settings = plain_sheet({path: file.text for path, file in files.items()}), self.task.settings
        run = await run_sheet(self.place, sheet, trees=(tree,), settings=settings, timeout_s=settings.timeout_s)
        faults = differences(files, seen, run)
        fault = f"blind tests: {_without_parameters(faults[0], seen)}" if faults else ""
        words = f"{len(seen)} tests see the same without their expectations as with the solution"
        self._record("blind tests", started, fault or words)
        if not fault:
            self.found.append(words)
        return fault

    async def _heldout(self, folder: Path) -> str:
        if self.task.heldout is None:
            self.found.append("the task has no held-out calls")
            return ""
        started, seed = time.monotonic(), self.rng.getrandbits(48)
        observed = await observe_solution(self.place, self.task, tree=folder / "solution", seed=seed)
        differing = await compare_work(self.place, self.task, observed, tree=folder / "work")
        num_calls = len(observed.calls)
        words = (
            f"{summary(differing, num_calls)} (seed {seed})" if differing else f"{num_calls} held-out calls are answered as by the solution"
        )
        self._record("held-out", started, words)
        self.found.append(words)
        return words if differing else ""

    def _record(self, name: str, started: float, words: str) -> None:
        self.stages.append(Stage(name, time.monotonic() - started, _plain(words, _MAX_EVIDENCE)))

    def _evidence(self, words: str) -> str:
        dropped = _plain(self._in_words_dropped(), _MAX_DROPPED)
        return _plain(words, _MAX_EVIDENCE - len(dropped)) + dropped

    def _in_words_dropped(self) -> str:
        if not self.dropped:
            return ""
        named = ", ".join(f"{dropped.path} ({dropped.reason})" for dropped in self.dropped[:3])
        return f"; {len(self.dropped)} dropped: {named}"


def _without_parameters(words: str, tests: Iterable[str]) -> str:
    """Parameters are in the names of tests, and are what hidden tests check."""
    for test in tests:
        words = words.replace(test, function_of(test))
    return words


def _plain(words: str, most: int) -> str:
    """One line of printable characters, cut: some of them come out of the process that is judged."""
    words = " ".join(words[: 4 * most].split())
    words = "".join(character if character.isprintable() else "?" for character in words)
    return words if len(words) <= most else f"{words[: most - 1]}…"
