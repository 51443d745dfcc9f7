"""Which tests that hold are judged: of files beyond a change's own near ones first, few and quick; and none that is slow. Runs nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from trunkline.tasks.factory.language import Results

MOST_FILES = 6
"""Beyond those of the change: every verdict reads, copies and imports each of them."""
MOST_TESTS = 200
"""In them."""
MOST_SECONDS = 1.5
"""That they may take together."""
_A_FILE_S = 0.05
"""What a file takes beside its tests, about: it is imported, with what it imports."""
_ASIDE = frozenset({"bench", "benches", "benchmark", "benchmarks", "doc", "docs", "example", "examples", "perf", "scripts", "tools"})


def file_of(test: str) -> str:
    """The file of a test, by the test's name."""
    return test.partition("::")[0].partition(" > ")[0]


def function_of(test: str) -> str:
    """A test's name without its parameters."""
    return test.partition("[")[0]


def nearest_first(files: Sequence[str], touched: Sequence[str]) -> tuple[str, ...]:
    """The files by how few steps through directories lead from a touched one to them, then by name; benchmarks and the like left out."""
    inside = [path for path in files if _ASIDE.isdisjoint(PurePosixPath(path.casefold()).parts[:-1])]
    return tuple(sorted(inside, key=lambda path: (min((_steps(path, other) for other in touched), default=0), path)))


def choose_files(files: Sequence[str], suite: Results) -> tuple[str, ...]:
    """Of files, in their order, those that still fit: a file whose tests are too many or too slow is passed over."""
    passed = [test for test, ended in suite.outcomes.items() if ended == "passed"]
    num_by_file = Counter(file_of(test) for test in passed)
    seconds_by_file: dict[str, float] = defaultdict(float)
    for test in suite.outcomes:
        seconds_by_file[file_of(test)] += suite.durations.get(test, 0.0)
    chosen: list[str] = []
    num_tests, seconds = 0, 0.0
    for path in files:
        more, longer = num_by_file[path], seconds_by_file[path] + _A_FILE_S
        fits = num_tests + more <= MOST_TESTS and seconds + longer <= MOST_SECONDS and len(chosen) < MOST_FILES
        if more and fits and path not in suite.faults:
            chosen.append(path)
            num_tests, seconds = num_tests + more, seconds + longer
    return tuple(chosen)


def slow_functions(tests: Sequence[str], durations: Mapping[str, float], most_seconds: float) -> frozenset[str]:
    """Functions of tests without which all the others take `most_seconds` at most: as few as possible, so the slowest."""
    seconds: dict[str, float] = defaultdict(float)
    for test in tests:
        seconds[function_of(test)] += durations.get(test, 0.0)
    total, slow = sum(seconds.values()), []
    for function in sorted(seconds, key=lambda name: (-seconds[name], name)):
        if total <= most_seconds:
            break
        slow.append(function)
        total -= seconds[function]
    return frozenset(slow)


def _steps(one: str, other: str) -> int:
    """Up and down directories."""
    ours, theirs = PurePosixPath(one).parent.parts, PurePosixPath(other).parent.parts
    num_shared = next(
        (place for place, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), min(len(ours), len(theirs))
    )
    return len(ours) + len(theirs) - 2 * num_shared
