"""Choosing the environment of a change: the first recipe under which its tests run, or the best, or a repaired one. Owns no recipe.

recipe ─► build ─► touched test files after the change ─► good: taken
   │                                                └─► else the next one; at the end the one with most tests that pass
   └── repaired, if asked for and none is good: at most three times
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trunkline.tasks.factory.candidate import Candidate, Rejection
from trunkline.tasks.factory.language import Environment, Language, Recipe, Results

Repair = Callable[[Recipe, str], Awaitable[Recipe | None]]
"""(recipe, last lines of the log) to another recipe, or None."""

_MOST_REPAIRS = 3
_MOST_FAILING = 0.1
"""Share of the touched tests that may fail after the change before another recipe is tried."""
_MOST_LINES = 20


def is_out_of_time(results: Results, timeout_s: float) -> bool:
    """Whether a run says nothing since it took too long."""
    return bool(results.complaint) and ("did not end within" in results.complaint or results.seconds >= timeout_s)


@dataclass(frozen=True)
class Trial:
    """A recipe under which the touched test files ran."""

    recipe: Recipe
    """What was tried."""
    environment: Environment
    """What it gave."""
    results: Results
    """Of the touched test files, after the change."""

    @property
    def num_passed(self) -> int:
        """Tests that passed."""
        return len(self.results.passed)

    @property
    def is_good(self) -> bool:
        """Whether no other recipe needs to be tried."""
        ended = self.results.outcomes.values()
        num_bad = sum(outcome in ("failed", "error") for outcome in ended)
        return not self.results.complaint and not self.results.faults and self.num_passed > 0 and num_bad <= _MOST_FAILING * len(ended)

    def log(self) -> str:
        """Why it is not good."""
        bad = [f"{name}: {outcome}" for name, outcome in self.results.outcomes.items() if outcome in ("failed", "error")]
        faults = [f"{path}: {words}" for path, words in self.results.faults.items()]
        return "\n".join([*filter(None, [self.results.complaint]), *faults, *bad[:_MOST_LINES]])


@dataclass
class Ladder:
    """One change's way to its environment."""

    language: Language
    """Builds and runs."""
    project: Path
    """The project after the change, that an environment is made for."""
    tree: Path
    """What is run."""
    touched: Sequence[str]
    """Test files of the change."""
    timeout_s: float
    """Of one run of them."""
    num_tried: int = 0
    """Recipes so far."""
    trials: list[Trial] = field(default_factory=list)
    """Those of them that were built."""
    rejections: list[Rejection] = field(default_factory=list)
    """Of the others."""

    async def climb(self, candidate: Candidate, repair: Repair | None) -> Trial:
        """The first good trial, else that with most tests that pass. Raises Rejection."""
        recipes = await asyncio.to_thread(self.language.recipes, self.project, candidate.date)
        for recipe in recipes:
            if (trial := await self._try(recipe)) is not None and trial.is_good:
                return trial
        if repair is not None and recipes and (trial := await self._try_repaired(repair, self._most_hopeful(recipes))) is not None:
            return trial
        best = max(self.trials, key=lambda trial: trial.num_passed, default=None)
        if best is None:
            last = self.rejections[-1].detail if self.rejections else "there is no recipe"
            raise Rejection("environment", "no environment builds", last)
        if best.num_passed == 0:
            raise self._why_none(best)
        return best

    async def _try(self, recipe: Recipe) -> Trial | None:
        self.num_tried += 1
        try:
            environment = await self.language.build(recipe, self.project)
        except Rejection as rejection:
            self.rejections.append(rejection)
            return None
        results = await self.language.run(environment, (self.tree,), self.touched, timeout_s=self.timeout_s)
        self.trials.append(Trial(recipe, environment, results))
        return self.trials[-1]

    async def _try_repaired(self, repair: Repair, recipe: Recipe) -> Trial | None:
        log = self.trials[-1].log() if self.trials else self.rejections[-1].detail
        for _ in range(_MOST_REPAIRS):
            changed = await repair(recipe, log)
            if changed is None:
                return None
            trial, recipe = await self._try(changed), changed
            if trial is not None and trial.is_good:
                return trial
            log = trial.log() if trial is not None else self.rejections[-1].detail
        return None

    def _most_hopeful(self, recipes: Sequence[Recipe]) -> Recipe:
        return max(self.trials, key=lambda trial: trial.num_passed).recipe if self.trials else recipes[0]

    def _why_none(self, best: Trial) -> Rejection:
        if any(is_out_of_time(trial.results, self.timeout_s) for trial in self.trials):
            return Rejection("run", "out of time", f"{', '.join(self.touched)} after the change: more than {self.timeout_s:g} s")
        words = best.log().partition("\n")[0]
        if not best.results.outcomes:
            return Rejection("run", "tests do not run", words or "the touched files have no test")
        return Rejection("run", "touched tests fail after the change", words or "all are skipped")
