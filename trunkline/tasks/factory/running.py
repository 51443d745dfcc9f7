"""Finding the tests that a change turns, by running them before and after it. Owns the rules; recipes are chosen by ladder.py.

    recipes ─► the first under which the touched test files run after the change (a1)
            ─► the same before it (b1): nothing turns, the end
            ─► all other test files once (cap) ─► the nearest of them that are quick
            ─► touched and chosen files after (a2 ...), chosen ones before (b2) ─► Tested, kind

After is the state before with the change's tests and its solution laid over it, as a verdict lays them.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from trunkline.tasks.environments.layout import is_test_file
from trunkline.tasks.factory.candidate import Candidate, Rejection
from trunkline.tasks.factory.change import Change
from trunkline.tasks.factory.draft import Tested
from trunkline.tasks.factory.ladder import Ladder, Repair, Trial, is_out_of_time
from trunkline.tasks.factory.language import Environment, Language, Results
from trunkline.tasks.factory.nearby_tests import choose_files, file_of, function_of, nearest_first, slow_functions
from trunkline.tasks.factory.route import kind_of, measure_speed, why_nothing_turns
from trunkline.tasks.swe.task import Kind, is_regular, walk

_MOST_TRIES_OF_SUITE = 2
_MOST_SECONDS_HOLDING = 1.0
"""Of the tests that hold; if they take more, the slowest are not judged, for every verdict runs what is judged."""
_MOST_NAMES = 20
_CODE = frozenset({".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".jsx", ".tsx"})


@dataclass(frozen=True)
class Found:
    """What a draft is made of, beside its words."""

    environment: Environment
    """The first in which the tests run."""
    tested: Tested
    """How they end."""
    test_files: tuple[str, ...]
    """Files that are judged: those of the change, then others that are near and quick."""
    change: Change
    """What the change does."""
    kind: Kind
    """What is asked for."""
    facts: dict[str, str] = field(default_factory=dict)
    """For the record: recipe, seconds, what was left out."""


async def find_tests(
    language: Language,
    candidate: Candidate,
    before: Path,
    after: Path,
    *,
    timeout_s: float,
    cap_s: float,
    repeats: int = 2,
    repair: Repair | None = None,
) -> Found:
    """Runs the tests of a change: four to five runs for a task, two for a change that turns nothing.

    Args:
        language: Builds and runs.
        candidate: The change.
        before: The project's files before it.
        after: The project's files after it.
        timeout_s: Of one run of the judged test files.
        cap_s: Of one run of all the others.
        repeats: Runs after the change, 2 or more.
        repair: Asked for another recipe once no recipe of the language's own works; None: never.

    Raises Rejection:
        environment: 'no environment builds'.
        run: 'no test is changed', 'tests do not run', 'touched tests fail after the change', 'out of time', 'no test turns',
            'tests differ between runs', 'speed cannot be judged', 'a refactoring, and no test turns'.
    """
    assert repeats >= 2, "one run says nothing of a difference between runs"
    change = await asyncio.to_thread(Change.between, before, after, language)
    touched = test_files_of((one.path for one in change.hidden_tests), language)
    if not touched:
        raise Rejection("run", "no test is changed", "of the tests only helpers, data or deleted files differ")
    with tempfile.TemporaryDirectory(prefix="trunkline-run-") as folder:
        unsolved, solved = Path(folder) / "before", Path(folder) / "after"
        await asyncio.to_thread(change.lay, unsolved, before, is_solved=False)
        await asyncio.to_thread(change.lay, solved, before, is_solved=True)
        ladder = Ladder(language, after, solved, touched, timeout_s)
        trial = await ladder.climb(candidate, repair)
        work = _Running(language, trial, touched, (unsolved, solved), timeout_s, lambda: why_nothing_turns(candidate, change, language))
        work.facts |= {"recipe": trial.recipe.words, "recipes_tried": str(ladder.num_tried)}
        await work.run_before()
        await work.run_others(cap_s)
        await work.run_again(repeats - 1)
        tested = work.tested()
        kind = kind_of(candidate, change, tested, language)
        if kind == "performance" and not await work.is_faster():
            kind = kind_of(candidate, change, tested, language, is_faster=False)
    return Found(trial.environment, tested, work.judged_files(tested), change, kind, work.facts)


def test_files_of(paths: Iterator[str] | Sequence[str], language: Language) -> tuple[str, ...]:
    """Those that a test runner is asked to run, sorted: no helpers, fixtures and data beside them."""
    tests = [path for path in paths if language.role_of(path) == "test"]
    return tuple(sorted(path for path in tests if is_test_file(path) or PurePosixPath(path).suffix in _CODE))


@dataclass
class _Running:
    language: Language
    trial: Trial
    touched: tuple[str, ...]
    trees: tuple[Path, Path]
    """Before and after, both with the change's tests."""
    timeout_s: float
    why_nothing: Callable[[], str]
    """Cause of a rejection if no test turns."""
    before: Results = field(default_factory=lambda: Results({}))
    others: Results = field(default_factory=lambda: Results({}))
    """Of the chosen files after the change, from the run of all of them."""
    others_before: Results = field(default_factory=lambda: Results({}))
    again: list[Results] = field(default_factory=list)
    chosen: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)

    async def run_before(self) -> None:
        """b1. Raises Rejection if no test turns."""
        self.before = await self._run(self.trees[0], self.touched)
        if is_out_of_time(self.before, self.timeout_s):
            raise Rejection("run", "out of time", f"{', '.join(self.touched)} before the change: more than {self.timeout_s:g} s")
        if not self.trial.results.passed - self.before.passed:
            raise Rejection("run", self.why_nothing(), f"{len(self.before.passed)} tests pass before and after")
        if self.before.complaint:
            self.facts["before"] = self.before.complaint[:200]

    async def run_others(self, cap_s: float) -> None:
        """All other test files after the change, nearest first; if they take too long, the nearer half of them."""
        sources = await asyncio.to_thread(lambda: [path.relative_to(self.trees[1]).as_posix() for path in _files(self.trees[1])])
        files = nearest_first([path for path in test_files_of(sources, self.language) if path not in self.touched], self.touched)
        for _ in range(_MOST_TRIES_OF_SUITE):
            if not files:
                return
            suite = await self._run(self.trees[1], files, timeout_s=cap_s)
            if not suite.complaint:
                self.facts["suite"] = f"{len(suite.outcomes)} tests of {len(files)} further files in {suite.seconds:.1f} s"
                self.others, self.chosen = suite, choose_files(files, suite)
                left_out = [path for path in files if path not in self.chosen]
                if left_out:
                    self.facts["left_out"] = _named(left_out)
                return
            if not is_out_of_time(suite, cap_s):
                self.facts["suite"] = f"not judged: {suite.complaint[:200]}"
                return
            self.facts["suite_cut"] = f"{len(files)} further files take more than {cap_s:g} s"
            files = files[: len(files) // 2]

    async def run_again(self, num_times: int) -> None:
        """a2 and later, with the chosen files; without them, if they cannot run together."""
        if self.chosen:
            self.others_before = await self._run(self.trees[0], self.chosen)
            if self.others_before.complaint:
                self._forget_chosen(self.others_before.complaint)
        while len(self.again) < num_times:
            results = await self._run(self.trees[1], (*self.touched, *self.chosen))
            if not results.complaint:
                self.again.append(results)
            elif self.chosen:
                self._forget_chosen(results.complaint)
            elif is_out_of_time(results, self.timeout_s):
                raise Rejection("run", "out of time", f"{', '.join(self.touched)} after the change, again")
            else:
                raise Rejection("run", "tests differ between runs", f"a second run says nothing: {results.complaint[:200]}")
        self.facts["seconds"] = f"{self.again[-1].seconds:.2f}"

    async def is_faster(self) -> bool:
        """Whether the touched files say so, beyond doubt."""
        if self.before.complaint:
            return False
        speed = await measure_speed(self.language, self.trial.environment, self.trees, self.touched, timeout_s=self.timeout_s)
        self.facts["speed"] = speed.words
        return speed.is_significant

    def tested(self) -> Tested:
        """By the rules. Raises Rejection if nothing that turns is left."""
        first = dict(self.trial.results.outcomes)
        first |= {name: ended for name, ended in self.others.outcomes.items() if file_of(name) in self.chosen}
        runs = [first, *(dict(results.outcomes) for results in self.again)]
        quarantined, passed = {}, []
        for name in sorted({name for run in runs for name in run}):
            ended = {run.get(name, "missing") for run in runs}
            if len(ended) > 1:
                quarantined[name] = f"{' or '.join(sorted(ended))} after the change"
            elif ended == {"passed"}:
                passed.append(name)
        was_passed = self.before.passed | self.others_before.passed
        # A test of another file that fails before the change has turned by it, too, if that file ran there.
        turned = [name for name in passed if name not in was_passed]
        if not turned:
            # A name with the time in it is another one each time, which says nothing of the change if the function passes before.
            holding = {function_of(name) for name in was_passed}
            unsteady = sorted(name for name in quarantined if function_of(name) not in holding)
            raise Rejection("run", "tests differ between runs" if unsteady else self.why_nothing(), _named(unsteady or sorted(quarantined)))
        slow = slow_functions([name for name in passed if name in was_passed], self.again[-1].durations, _MOST_SECONDS_HOLDING)
        if slow:
            self.facts["slow"] = _named(sorted(slow))
        return Tested(
            fail_to_pass=tuple(turned),
            pass_to_pass=tuple(name for name in passed if name in was_passed and function_of(name) not in slow),
            new_tests=tuple(name for name in turned if self._is_new(name)),
            quarantined=quarantined,
        )

    def judged_files(self, tested: Tested) -> tuple[str, ...]:
        """Those with a judged test, touched ones first."""
        judged = {file_of(name) for name in (*tested.fail_to_pass, *tested.pass_to_pass)}
        return tuple(path for path in (*self.touched, *self.chosen) if path in judged)

    def _is_new(self, name: str) -> bool:
        """Whether it is not there before the change, though its file was loaded."""
        results = self.before if file_of(name) in self.touched else self.others_before
        return not results.complaint and file_of(name) not in results.faults and name not in results.outcomes

    def _forget_chosen(self, why: str) -> None:
        self.facts["suite"] = f"not judged: {why[:200]}"
        self.chosen, self.others_before = (), Results({})

    async def _run(self, tree: Path, files: Sequence[str], *, timeout_s: float | None = None) -> Results:
        return await self.language.run(self.trial.environment, (tree,), files, timeout_s=self.timeout_s if timeout_s is None else timeout_s)


def _files(tree: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from (path for path in walk(tree) if is_regular(path))


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
