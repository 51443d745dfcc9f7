"""What of a task's tests can be judged, found by running them: which turn, which hold, which changes bite. Owns no verdict.

    no-op and solution, several plain runs ─► fail-to-pass, pass-to-pass, quarantined by name
    solution, changed copies               ─► probes: those that it fails by assertion
    solution, sheets as of a verdict       ─► what passes alone but not among copies is quarantined, too
    solution against itself, held out      ─► its answers are firm

A calibration is part of a certificate and is trusted as that is.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from trunkline.errors import TaskError, VerifierError
from trunkline.tasks.swe.allowed import Dropped, allow_for_task
from trunkline.tasks.swe.blind_checks import differences, hides_answers
from trunkline.tasks.swe.blind_tests import blind_files
from trunkline.tasks.swe.dealing import settle, usable
from trunkline.tasks.swe.heldout import compare_work, observe_solution
from trunkline.tasks.swe.outcomes import TestOutcome, TestRun, biting_probes, mismatches
from trunkline.tasks.swe.perturb import Probe, candidate_probes
from trunkline.tasks.swe.place import VerdictPlace, oracle_changes
from trunkline.tasks.swe.run_tests import run_sheet
from trunkline.tasks.swe.sheets import Expected, Sheet, function_of, make_sheets, masked, plain_sheet, probe_sheet, split_test
from trunkline.tasks.swe.task import CodeTask, judged_sources, task_digest, visible_sources
from trunkline.tasks.swe.told import Told, shows_true_value, stands_in_workspace
from trunkline.tasks.swe.tree import lay_tree
from trunkline.types import FileChange

_MOST_CANDIDATES = 24
"""Of one function that must turn."""
_MOST_CANDIDATES_HOLDING = 6
"""Of one that passes before and after, of which so many are probed:"""
_MOST_HOLDING = 8
_MOST_IN_ALL = 400
_NUM_TRIALS = 4
_MISSING = "missing"


class Calibration(BaseModel):
    """What verdicts on one task are made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fail_to_pass: tuple[str, ...] = Field(description="Tests that the solution passes and the pristine workspace does not.")
    pass_to_pass: tuple[str, ...] = Field(description="Tests that pass in both.")
    quarantined: dict[str, str] = Field(description="Tests that are not judged, and why.")
    probes: tuple[Probe, ...] = Field(description="Places of tests, and changes of them, that make the solution fail.")
    unprobed: tuple[str, ...] = Field(description="Functions that must turn, and whose changed copies do not hide which is true.")
    num_candidates: int = Field(description="Changes that were tried.")
    seen: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="What tests without their expectations see with the solution (blind_tests.py); {}: not asked."
    )
    blind: tuple[str, ...] = Field((), description="Functions that must turn and see what is neither known nor told.")
    num_heldout: int = Field(0, description="Held-out calls that were observed; 0: the task has none.")
    num_heldout_differing: int = Field(0, description="Of these, calls that the pristine workspace answers otherwise than the solution.")
    notes: tuple[str, ...] = Field((), description="What of its tests could not be hidden or copied, and what of the solution is dropped.")


async def calibrate(
    task: CodeTask, place: VerdictPlace, *, repeats: int = 3, on_step: Callable[[str], None] = lambda words: None
) -> Calibration:
    """Runs the tests of a task on the pristine workspace and on its solution: some ten sealed processes.

    Raises:
        TaskError: no test turns, a declared list does not hold, or the solution does not agree with itself.
        VerifierError: a process took too long or spent a limit.
    """
    on_step("the solution's changes")
    oracle = await oracle_changes(task, place)
    with tempfile.TemporaryDirectory(prefix="trunkline-calibration-") as folder:
        work = _Calibrating(task, place, Path(folder), judged_sources(task), on_step)
        await asyncio.to_thread(work.lay, oracle)
        await work.sort_tests(repeats)
        await work.find_probes()
        await work.try_sheets()
        await work.try_heldout()
        await work.see_blindly()
        return work.result()


@dataclass
class _Calibrating:
    task: CodeTask
    place: VerdictPlace
    folder: Path
    sources: dict[str, str]
    on_step: Callable[[str], None]
    fail_to_pass: set[str] = field(default_factory=set)
    pass_to_pass: set[str] = field(default_factory=set)
    quarantined: dict[str, str] = field(default_factory=dict)
    probes: list[Probe] = field(default_factory=list)
    num_candidates: int = 0
    num_heldout: int = 0
    num_heldout_differing: int = 0
    seen: dict[str, tuple[str, ...]] = field(default_factory=dict)
    blind: set[str] = field(default_factory=set)
    notes: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.told = Told(self.task.instruction)
        self.visible = visible_sources(self.task)
        # The same task is calibrated the same way; what a verdict draws is drawn anew.
        self.rng = random.Random(task_digest(self.task.folder))

    @property
    def pristine(self) -> Path:
        return self.folder / "pristine"

    @property
    def solution(self) -> Path:
        return self.folder / "solution"

    def lay(self, oracle: Sequence[FileChange]) -> None:
        """Both trees, as a verdict has them."""
        allowed = allow_for_task(self.task, oracle, oracle=oracle, reserved=self.place.environment.modules)
        self.notes |= {f"of the solution, {_words(one)} is dropped": None for one in allowed.dropped}
        without = frozenset(self.sources)
        for tree, changes in ((self.pristine, ()), (self.solution, allowed.kept)):
            lay_tree(tree, pristine=self.task.workspace, changes=changes, hidden=self.task.hidden_tests, without=without)

    async def sort_tests(self, repeats: int) -> None:
        """Which tests turn, which hold, and which of them cannot be judged."""
        sheet = plain_sheet(self.sources)
        before, after = [], []
        for number in range(1, repeats + 1):
            self.on_step(f"tests without and with the solution, {number} of {repeats}")
            before.append(await self._run(sheet, self.pristine))
            after.append(await self._run(sheet, self.solution))
            if after[-1].complaint:
                raise TaskError(f"{self.task.folder}: the tests cannot be judged with the solution: {after[-1].complaint}")
        for test in sorted({name for run in (*before, *after) for name in run.outcomes}):
            was, becomes = _outcomes(before, test), _outcomes(after, test)
            if becomes != {"passed"}:
                self.quarantined[test] = f"{' or '.join(sorted(becomes))} with the solution"
            elif "passed" in was and len(was) > 1:
                self.quarantined[test] = f"{' or '.join(sorted(was))} without the solution"
            else:
                (self.pass_to_pass if was == {"passed"} else self.fail_to_pass).add(test)
        self._require_declared()
        self._require_turning()

    async def find_probes(self) -> None:
        """Changes of tests that the solution fails by assertion, each time."""
        candidates = self._candidates()
        self.num_candidates = len(candidates)
        self.on_step(f"{len(candidates)} changes of tests")
        sheet = probe_sheet(self.sources, candidates)
        try:
            once, again = [biting_probes(sheet, await self._run(sheet, self.solution, patience=3)) for _ in range(2)]
        except VerifierError as error:  # a changed input can make code go on for ever, and all of them share one process
            self.notes[f"no copy of a test is changed: {error}"] = None
            return
        self.probes = settle(candidates, [probe for probe in once if probe in again])

    async def try_sheets(self) -> None:
        """Verdicts on the solution: what is not as it must be there would cost right work its reward."""
        for number in range(1, _NUM_TRIALS + 1):
            self.on_step(f"the solution on sheets of copies, try {number} of at most {_NUM_TRIALS}")
            faults = await self._try_sheets()
            if not faults:
                return
            self._require_turning()
        raise TaskError(
            f"{self.task.folder}: the solution does not pass sheets of copies of its tests: {'; '.join(faults[:3])}; make the tests "
            "independent of their names and of each other, or leave them out with pass_to_pass and fail_to_pass"
        )

    async def _try_sheets(self) -> list[str]:
        """What is not as it must be on the first sheet of a verdict where something is not; whatever is to blame is left out."""
        judged = (*sorted(self.fail_to_pass), *sorted(self.pass_to_pass))
        turning = {function_of(test) for test in self.fail_to_pass}
        for sheet in make_sheets(self.sources, judged=judged, to_probe=turning, probes=self.probes, rng=self.rng):
            run = await self._run(sheet, self.solution)
            self.notes |= dict.fromkeys(sheet.notes)
            if faults := mismatches(sheet, judged, run):
                if not run.complaint:
                    self._leave_out(sheet, run)
                return faults
        return []

    async def try_heldout(self) -> None:
        """Whether the solution answers held-out calls twice the same, and how often the pristine workspace answers otherwise."""
        if self.task.heldout is None:
            return
        self.on_step("held-out calls")
        for seed in (self.rng.getrandbits(48), self.rng.getrandbits(48)):
            observed = await observe_solution(self.place, self.task, tree=self.solution, seed=seed)
            if differing := await compare_work(self.place, self.task, observed, tree=self.solution):
                raise TaskError(
                    f"{self.task.heldout} (seed {seed}): the solution does not answer twice the same: {differing[0]}; what observe(call) "
                    "returns must not depend on the order of sets, on the time, on identities"
                )
            self.num_heldout += len(observed.calls)
            self.num_heldout_differing += len(await compare_work(self.place, self.task, observed, tree=self.pristine))
        if not self.num_heldout_differing:
            self.notes["no held-out call tells the pristine workspace from the solution"] = None

    async def see_blindly(self) -> None:
        """What tests that must turn see without their expectations; with held-out calls nobody needs to know."""
        if self.num_heldout_differing:
            return
        self.on_step("tests without their expectations")
        files = blind_files(self.sources, self.fail_to_pass)
        sheet = plain_sheet({path: file.text for path, file in files.items()})
        if not files:
            return
        once, again = [await self._run(sheet, self.solution) for _ in range(2)]
        before = await self._run(sheet, self.pristine)
        for test in sorted(self.fail_to_pass & once.seen.keys() & once.passed & again.passed):
            if not differences(files, {test: once.seen[test]}, again):
                self.seen[test] = once.seen[test]
                path, function = test.partition("::")[0], function_of(test)
                hides = hides_answers(files[path], once.seen[test], before.seen.get(test, ()), self.told)
                if hides and not stands_in_workspace(function, self.sources, self.visible):
                    self.blind.add(function)

    def result(self) -> Calibration:
        """What was found."""
        return Calibration(
            fail_to_pass=tuple(sorted(self.fail_to_pass)),
            pass_to_pass=tuple(sorted(self.pass_to_pass)),
            quarantined=dict(sorted(self.quarantined.items())),
            probes=tuple(usable(self.probes)),
            unprobed=tuple(sorted({function_of(test) for test in self.fail_to_pass} - self._masked())),
            num_candidates=self.num_candidates,
            seen=self.seen,
            blind=tuple(sorted(self.blind)),
            num_heldout=self.num_heldout,
            num_heldout_differing=self.num_heldout_differing,
            notes=tuple(self.notes),
        )

    def _masked(self) -> set[str]:
        """Functions among whose copies nothing that an agent has tells the true one."""
        dealt: dict[str, list[Probe]] = {name: [] for name in masked(self.sources, self.probes)}
        for probe in usable(self.probes):
            dealt.get(probe.function, []).append(probe)
        return {
            name
            for name, probes in dealt.items()
            if not shows_true_value(probes, self.sources[name.partition("::")[0]], self.told)
            and not stands_in_workspace(name, self.sources, self.visible)
        }

    async def _run(self, sheet: Sheet, tree: Path, *, patience: float = 1.0) -> TestRun:
        settings = self.task.settings
        return await run_sheet(self.place, sheet, trees=(tree,), settings=settings, timeout_s=patience * settings.timeout_s)

    def _candidates(self) -> list[Probe]:
        turning = sorted({function_of(test) for test in self.fail_to_pass})
        holding = sorted({function_of(test) for test in self.pass_to_pass} - set(turning))
        most = max(2, min(_MOST_CANDIDATES, _MOST_IN_ALL // len(turning)))
        found: list[Probe] = []
        for function in (*turning, *self.rng.sample(holding, min(_MOST_HOLDING, len(holding)))):
            path, _, qualname = function.partition("::")
            limit = most if function in turning else _MOST_CANDIDATES_HOLDING
            found += candidate_probes(self.sources[path], file=path, qualname=qualname, rng=self.rng, most=limit)
        return found

    def _require_declared(self) -> None:
        """A task's own lists win over what was found, where that bears them out."""
        settings = self.task.settings
        found = {"fail_to_pass": self.fail_to_pass, "pass_to_pass": self.pass_to_pass}
        for name, declared in (("fail_to_pass", settings.fail_to_pass), ("pass_to_pass", settings.pass_to_pass)):
            if wrong := [test for test in declared if test not in found[name]]:
                raise TaskError(
                    f"{self.task.folder / 'task.toml'}: {name} names {len(wrong)} tests that are not so, first {wrong[0]!r}: "
                    f"{self._what_is(wrong[0])}; correct the list, or leave it out"
                )
            if declared:
                found[name].intersection_update(declared)

    def _what_is(self, test: str) -> str:
        if test in self.quarantined:
            return f"it is {self.quarantined[test]}"
        known = {"it passes before and after": self.pass_to_pass, "the solution makes it pass": self.fail_to_pass}
        return next((words for words, tests in known.items() if test in tests), "there is no such test")

    def _require_turning(self) -> None:
        if not self.fail_to_pass:
            why = "; ".join([f"{test} is {words}" for test, words in self.quarantined.items()][:3])
            raise TaskError(
                f"{self.task.folder}: no test fails on the workspace and passes with the solution, so nothing tells solved from unsolved; "
                f"{f'not judged: {why}' if why else 'add one to tests/tree'}{f' ({next(iter(self.notes))})' if self.notes else ''}"
            )

    def _leave_out(self, sheet: Sheet, run: TestRun) -> None:
        """Quarantines what does not pass, and drops probes that do not bite any more."""
        seen: dict[str, list[tuple[str, TestOutcome]]] = {name: [] for name in sheet.expected}
        for test, outcome in run.outcomes.items():
            name, parameters = split_test(test)
            seen.setdefault(name, []).append((parameters, outcome))
        for name, expected in sheet.expected.items():
            if not expected.is_canary:
                self._blame(expected, dict(seen[name]), run.faults.get(name.partition("::")[0], ""))

    def _blame(self, expected: Expected, outcomes: Mapping[str, TestOutcome], fault: str) -> None:
        if expected.outcome == "failed":
            if any(parameters not in outcomes or outcomes[parameters].outcome != "failed" for parameters in expected.fails):
                place = (expected.probe.function, expected.probe.site) if expected.probe else None
                self.probes = [probe for probe in self.probes if (probe.function, probe.site) != place]
            return
        judged = {test for test in self.fail_to_pass | self.pass_to_pass if function_of(test) == expected.original}
        for test in judged:
            found = outcomes.get(split_test(test)[1])
            if found is None or found.outcome != "passed":
                why = f" ({fault})" if fault else ""
                self.quarantined[test] = (
                    f"{found.outcome if found else _MISSING} among copies of the tests{why}, though it passes by itself"
                )
                self.fail_to_pass.discard(test)
                self.pass_to_pass.discard(test)


def _outcomes(runs: Sequence[TestRun], test: str) -> set[str]:
    return {run.outcomes[test].outcome if test in run.outcomes else _MISSING for run in runs}


def _words(dropped: Dropped) -> str:
    return f"{dropped.path} ({dropped.reason})"
