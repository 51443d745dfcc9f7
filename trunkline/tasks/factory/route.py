"""What kind of task a change is, by its words, its shape and what its tests did; and how much faster it made them. Owns no run of a task.

The first rule that says something decides:

    the solution has no source                                     tests
    'perf:', faster, speed up, slow, optimise ... in the title     performance
    'feat:' · 'fix:' · 'refactor:' in front of the title           feature · bug · refactor
    'fix', 'bug', 'raise', 'wrong' ... in the title, or it closes  bug
    an issue, and no test needs a name that is new
    refactor, rename, simplify ... in the title                    refactor
    add, support, allow, new ... in the title, or tests that are   feature
    there only after it
    anything else                                                  bug

Nothing is earned by time: a process owns its clock, and what an agent wrote runs in it. So a performance task is judged by tests that
turn and tests that hold, and its ratio is a fact of its record; one without a test that turns is rejected.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trunkline.tasks.factory.candidate import Candidate, Rejection
from trunkline.tasks.factory.change import Change
from trunkline.tasks.factory.draft import Tested
from trunkline.tasks.factory.git_source import is_fix_like
from trunkline.tasks.factory.language import Environment, Language
from trunkline.tasks.swe.task import Kind

_PREFIXES: dict[str, Kind] = {
    "feat": "feature", "feature": "feature", "enh": "feature", "fix": "bug", "bug": "bug", "bugfix": "bug", "perf": "performance",
    "refactor": "refactor", "ref": "refactor", "test": "tests", "tests": "tests",
}  # fmt: skip
_PREFIX = re.compile(r"\[?([A-Za-z]+)\]?(\([^)]*\))?!?: ")
_SPEED = re.compile(
    r"\b(faster|speed[- ]?ups?|speeds? up|performance|optimi[sz]\w*|slow(er|ness|ly)?|quadratic|linear time)\b", re.IGNORECASE
)
_REFACTOR = re.compile(
    r"\b(refactor\w*|renam\w+|simplif\w+|clean[- ]?ups?|cleans? up|moderni[sz]\w*|restructur\w+|deduplicat\w+)\b", re.IGNORECASE
)
_FEATURE = re.compile(
    r"\b(adds?|added|adding|new|support\w*|implement\w*|allow\w*|introduc\w+|accepts?|enable\w*|options?)\b", re.IGNORECASE
)

_T_95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)
"""Two-sided 95% quantiles of Student's t for 1, 2, ... degrees of freedom."""
_LEAST_RATIO = 1.1


def kind_of(candidate: Candidate, change: Change, tested: Tested, language: Language, *, is_faster: bool = True) -> Kind:
    """The kind of task, by the rules above; a change that is measured and not faster is no performance task, whatever its title says."""
    named = _by_shape(change, language) or _by_title(candidate)
    return named if named and (is_faster or named != "performance") else _by_tests(candidate, tested)


def why_nothing_turns(candidate: Candidate, change: Change, language: Language) -> str:
    """The cause to reject a change with of whose tests none turns."""
    kind = _by_shape(change, language) or _by_title(candidate)
    return {"performance": "speed cannot be judged", "refactor": "a refactoring, and no test turns"}.get(kind or "", "no test turns")


@dataclass(frozen=True)
class Speed:
    """How much faster tests run after a change. `Speed(1.8, 1.6, 2.1, 7)`: 1.8 times, 1.6 to 2.1 with 95% confidence."""

    ratio: float
    """Time before over time after, the geometric mean of pairs of runs."""
    low: float
    """Of its 95% interval."""
    high: float
    """Likewise."""
    num_pairs: int
    """Of runs that were measured."""

    @property
    def is_significant(self) -> bool:
        """Whether it is faster by a tenth at least, and the whole interval says faster."""
        return self.ratio >= _LEAST_RATIO and self.low > 1.0

    @property
    def words(self) -> str:
        """For a record."""
        return f"{self.ratio:.2f} ({self.low:.2f} to {self.high:.2f}, {self.num_pairs} pairs)"


async def measure_speed(
    language: Language, environment: Environment, trees: tuple[Path, Path], files: Sequence[str], *, num_pairs: int = 7, timeout_s: float
) -> Speed:
    """Runs the same test files before and after by turns, and compares wall times that are read outside of the sandboxes.

    Start-up counts on both sides, which makes the ratio smaller than that of the work itself.

    Args:
        language: Runs them.
        environment: What they run in.
        trees: Before and after, both with the tests of the change.
        files: Test files.
        num_pairs: Of runs, 2 to 16.
        timeout_s: Of one run.

    Raises Rejection (run) if a run says nothing, SandboxError.
    """
    assert 2 <= num_pairs <= len(_T_95) + 1, "the interval needs 2 to 16 pairs"
    logs = []
    for number in range(num_pairs):
        seconds: dict[Path, float] = {}
        for tree in trees if number % 2 else reversed(trees):
            results = await language.run(environment, (tree,), files, timeout_s=timeout_s)
            if results.complaint or results.seconds <= 0:
                raise Rejection("run", "speed cannot be judged", results.complaint or "the run has no time")
            seconds[tree] = results.seconds
        logs.append(math.log(seconds[trees[0]] / seconds[trees[1]]))
    return speed_of(logs)


def speed_of(logs: Sequence[float]) -> Speed:
    """From the logarithms of the pairs' ratios: Student's interval of their mean."""
    mean = statistics.fmean(logs)
    half = _T_95[len(logs) - 2] * statistics.stdev(logs) / math.sqrt(len(logs))
    return Speed(math.exp(mean), math.exp(mean - half), math.exp(mean + half), len(logs))


def _by_shape(change: Change, language: Language) -> Kind | None:
    return None if any(language.role_of(one.path) == "source" for one in change.solution) else "tests"


def _by_title(candidate: Candidate) -> Kind | None:
    title = _title(candidate)
    prefix = _PREFIX.match(title)
    if prefix and (kind := _PREFIXES.get(prefix[1].casefold())):
        return kind
    if _SPEED.search(title):
        return "performance"
    return "refactor" if _REFACTOR.search(title) and not is_fix_like(title) else None


def _by_tests(candidate: Candidate, tested: Tested) -> Kind:
    title = _title(candidate)
    num_new = len(tested.new_tests)
    if is_fix_like(title):
        return "bug"
    if _FEATURE.search(title) or 2 * num_new > len(tested.fail_to_pass):
        return "feature"
    return "bug"


def _title(candidate: Candidate) -> str:
    """What people called the change; a source without titles gives ''."""
    return next((text.title for text in candidate.texts if text.role != "changelog" and text.title), "")
