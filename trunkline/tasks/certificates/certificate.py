"""A certificate as data: what was tried on a taskset or a task, and what came of it. Owns no trial and no store.

Its digest shows accidents and casual edits, not a forger who can write to the user's own folder.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue
from scipy.stats import binomtest

_CONFIDENCE = 0.95

ORACLE = "oracle"
"""The conduct that does the work."""
NO_OP = "no-op"
"""The conduct that does nothing."""


class Check(BaseModel):
    """What one conduct earned, on many tasks or on one task many times."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    conduct: str
    """Its name in the corpus."""
    earns: Literal[0, 1]
    """What it must earn."""
    num_attempts: int
    """Tasks tried, or tries at the one task."""
    num_wrong: int
    """Attempts that earned something else, or got no verdict."""
    num_disagreeing: int
    """Attempts whose repeated verdict, or whose repetition from a fresh start, differed."""
    residual_low: float
    """Lower end of the 95% Clopper-Pearson interval of the rate of wrong or disagreeing attempts."""
    residual_high: float
    """Its upper end: what the sample cannot exclude."""
    evidence: str = ""
    """What the verifier said of one attempt, for people."""

    @classmethod
    def count(
        cls, conduct: str, earns: Literal[0, 1], *, num_attempts: int, num_wrong: int, num_disagreeing: int, evidence: str = ""
    ) -> Check:
        """The check with its interval."""
        interval = binomtest(num_wrong + num_disagreeing, num_attempts).proportion_ci(_CONFIDENCE, method="exact")
        return cls(
            conduct=conduct,
            earns=earns,
            num_attempts=num_attempts,
            num_wrong=num_wrong,
            num_disagreeing=num_disagreeing,
            residual_low=float(interval.low),
            residual_high=float(interval.high),
            evidence=evidence,
        )

    @property
    def passed(self) -> bool:
        """Nothing was wrong and nothing disagreed."""
        return self.num_wrong == 0 and self.num_disagreeing == 0


class Certificate(BaseModel):
    """The outcome of certifying a taskset or a task, as it is stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["taskset", "task"]
    """What was certified: a generator of tasks by a sample, or one task."""
    subject: str
    """The taskset's short name, or the task's id."""
    key: str
    """Hash of all that the outcome depends on; see taskset_key and task_key."""
    attack_corpus_version: str
    """Which attacks were tried."""
    checks: tuple[Check, ...]
    """One a conduct. That of the oracle of a task is the rate at which its verdicts flake."""
    num_tasks_by_kind: dict[str, int]
    """How the tasks tried were spread."""
    not_excluded: tuple[str, ...]
    """Classes of unearned reward that remain possible, in words."""
    guessable: bool = False
    """Of a task: nothing that its tests compare is hidden from a forger who guesses what they expect. No run trains on it unasked."""
    not_instantiated: dict[str, str] = {}
    """Attacks of the corpus that have no meaning for this task, and why."""
    quarantined: dict[str, str] = {}
    """Tests that are not judged, and why."""
    calibration: dict[str, JsonValue] | None = None
    """What the trial found that every verdict needs; its model is that of the kind of task, which reads it back."""
    digest: str = ""
    """SHA-256 over all other fields."""

    def sealed(self) -> Certificate:
        """The same certificate with its digest."""
        return self.model_copy(update={"digest": self.expected_digest()})

    def expected_digest(self) -> str:
        """What `digest` is if nobody edited the rest."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json", exclude={"digest"}), sort_keys=True).encode()).hexdigest()

    @property
    def passed(self) -> bool:
        """The oracle earned 1, doing nothing earned 0, and every other check is as it must be."""
        tried = {(check.conduct, check.earns) for check in self.checks}
        return {(ORACLE, 1), (NO_OP, 0)} <= tried and all(check.passed for check in self.checks)
