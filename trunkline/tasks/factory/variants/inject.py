"""Tasks out of nothing but a project that works: a fault in one function, found by running the tests with it. Owns the choice of faults.

right tree ─► runs ─► passing tests                     ┌─ no test breaks, nothing loads, too much breaks: the next
     └─► mutations of functions that tests name ─► run ─┴─► run again ─► which checks fail alone ─► statement
                                                              └─► broken tests leave the workspace ─► Draft
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import stat
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from trunkline.tasks.factory.candidate import Candidate
from trunkline.tasks.factory.draft import Draft, Tested
from trunkline.tasks.factory.language import Environment, Language, Results
from trunkline.tasks.factory.variants.checks import Check, function_of, split_checks, without_functions
from trunkline.tasks.factory.variants.mutations import Mutation, find_mutations
from trunkline.tasks.factory.variants.reruns import Bench, compare
from trunkline.tasks.factory.variants.symptoms import MOST_LINES, Symptom, Tells, describe
from trunkline.tasks.swe.task import is_regular, walk
from trunkline.tasks.swe.tree import lay_tree
from trunkline.types import FileChange

_MOST_SOURCE_BYTES = 400_000


@dataclass(frozen=True)
class Ground:
    """A state of a project whose tests pass: what faults are put into."""

    candidate: Candidate
    """The change after which it is; names the tasks."""
    tree: Path
    """All its files, tests included."""
    environment: Environment
    """What they run in."""
    test_files: tuple[str, ...]
    """Tests that faults have to break."""


@dataclass(frozen=True)
class Injecting:
    """What is wanted of injected faults."""

    limit: int = 3
    """Tasks at most."""
    most_tries: int = 30
    """Faults that are tried at most; each costs a run of the tests."""
    most_of_a_function: int = 1
    """Tasks whose fault is in the same function."""
    most_broken: float = 0.5
    """Of the passing tests: what breaks more is found at once."""
    hides_tests: bool = True
    """Whether the broken tests leave the workspace, so that only the statement says what goes wrong, where it can be said."""
    tells: Tells = "file"
    """How close the statement leads."""
    timeout_s: float = 60.0
    """Of the first run; later ones may take a few times as long as that took."""


async def ground_of(draft: Draft, target: Path) -> Ground:
    """The project as it is after the draft's change, written to `target`, which must not be there yet."""
    await asyncio.to_thread(lay_tree, target, pristine=draft.workspace, changes=(*draft.solution, *draft.hidden_tests))
    return Ground(draft.candidate, target, draft.environment, draft.test_files)


async def inject(
    language: Language,
    ground: Ground,
    *,
    folder: Path,
    rng: random.Random,
    wanted: Injecting = Injecting(),
    on_try: Callable[[str], None] = lambda cause: None,
) -> list[Draft]:
    """Tasks with one fault each, their trees in `folder`; the same draws give the same tasks.

    `on_try` is told what became of each fault: 'kept', or why it is no task. [] if the tests do not pass on the right tree.
    Raises SandboxError.
    """
    bench = Bench(language, ground.environment, ground.test_files, wanted.timeout_s)
    right = await bench.several(ground.tree)
    if any(run.complaint for run in right):
        return []
    bench = replace(bench, timeout_s=min(wanted.timeout_s, 10 + 4 * max(run.seconds for run in right)))
    work = _Injecting(ground, bench, right, folder, wanted)
    drafts: list[Draft] = []
    kept: dict[tuple[str, str], int] = defaultdict(int)
    num_tries = 0
    for mutation in await asyncio.to_thread(_in_order, language, ground, rng):
        place = (mutation.path, mutation.function)
        if len(drafts) == wanted.limit or num_tries == wanted.most_tries:
            break
        if kept[place] < wanted.most_of_a_function:
            num_tries += 1
            made = await work.attempt(mutation)
            on_try(made if isinstance(made, str) else "kept")
            if not isinstance(made, str):
                kept[place] += 1
                drafts.append(made)
    return drafts


def faults_in(language: Language, tree: Path, test_files: Sequence[str]) -> list[Mutation]:
    """All faults in functions of a tree that its tests name, in the order of files."""
    words = " ".join((tree / file).read_text("utf-8", "replace") for file in test_files if (tree / file).is_file())
    found: list[Mutation] = []
    for path in walk(tree):
        name = path.relative_to(tree).as_posix()
        if name.endswith(".py") and language.role_of(name) == "source" and is_regular(path) and path.stat().st_size <= _MOST_SOURCE_BYTES:
            source = path.read_bytes().decode("utf-8", "replace")
            found += [one for one in find_mutations(source, path=name) if "�" not in source and _is_named(one, words)]
    return found


def _is_named(mutation: Mutation, words: str) -> bool:
    """Whether tests say the name of the function, or of its class where Python itself calls it."""
    *owners, name = mutation.function.split(".")
    return (owners[-1] if owners and name.startswith("__") else name) in words


def _in_order(language: Language, ground: Ground, rng: random.Random) -> Iterator[Mutation]:
    """One of each function, then a second one of each: the many slips of one long function are no more than its share."""
    groups: dict[tuple[str, str], dict[str, list[Mutation]]] = defaultdict(lambda: defaultdict(list))
    for mutation in faults_in(language, ground.tree, ground.test_files):
        groups[mutation.path, mutation.function][mutation.operator].append(mutation)
    turns = [_mixed(kinds, rng) for kinds in groups.values()]
    rng.shuffle(turns)
    return (turn[place] for place in range(max(map(len, turns), default=0)) for turn in turns if place < len(turn))


def _mixed(kinds: Mapping[str, list[Mutation]], rng: random.Random) -> list[Mutation]:
    """One of each operator, then a second one of each."""
    shuffled = [rng.sample(found, len(found)) for found in kinds.values()]
    rng.shuffle(shuffled)
    return [found[place] for place in range(max(map(len, shuffled))) for found in shuffled if place < len(found)]


@dataclass(frozen=True)
class _Injecting:
    ground: Ground
    bench: Bench
    right: tuple[Results, ...]
    folder: Path
    wanted: Injecting

    async def attempt(self, mutation: Mutation) -> Draft | str:
        """The task, or why it is none."""
        digest = hashlib.sha256(f"{mutation.path}\0{mutation.source}".encode()).hexdigest()[:8]
        name = f"{self.ground.candidate.candidate_id.lower()}-fault-{digest}"
        with _tree({mutation.path: mutation.source}) as top:
            first = await self.bench.run(self.ground.tree, top)
            if cause := self._unfit(compare([first], self.right), first):
                return cause
            wrong = await self.bench.several(self.ground.tree, top, first=[first])
            tested = compare(wrong, self.right)
            if cause := self._unfit(tested, wrong[-1]):
                return cause
            return await self._draft(name, mutation, tested, await self._symptoms(tested, top))

    def _unfit(self, tested: Tested, wrong: Results) -> str:
        """Why this fault is no task; '' if it may be one."""
        if wrong.complaint:
            return "out of time" if "within" in wrong.complaint else "no run"
        if wrong.faults.keys() - {file for run in self.right for file in run.faults}:
            return "a test file cannot be loaded"
        if not tested.fail_to_pass:
            return "no test breaks"
        broken_files = {test.partition("::")[0] for test in tested.fail_to_pass}
        if not any(test.partition("::")[0] in broken_files for test in tested.pass_to_pass):
            return "all tests of its files break"
        num_tests = len(tested.fail_to_pass) + len(tested.pass_to_pass)
        return "too many tests break" if len(tested.fail_to_pass) > self.wanted.most_broken * num_tests else ""

    async def _symptoms(self, tested: Tested, top: Path) -> list[Symptom]:
        """Checks that fail with the fault and pass without it, each alone; short ones first."""
        split: dict[str, str] = {}
        checks: dict[tuple[str, str], Check] = {}
        for file, functions in _by_file(tested.fail_to_pass).items():
            split[file], found = split_checks(_text(self.ground.tree / file), functions)
            checks |= {(file, check.name): check for check in found}
        with _tree(split) as over:
            wrong = await self.bench.run(self.ground.tree, top, over, files=tuple(split))
            right = await self.bench.run(self.ground.tree, over, files=tuple(split))
        symptoms: dict[tuple[str, str], Symptom] = {}
        for test in sorted(right.passed & (wrong.outcomes.keys() - wrong.passed)):
            file, _, function = test.partition("::")
            name, _, case = function.rpartition("::")[2].partition("[")
            if (check := checks.get((file, name))) and len(check.text.splitlines()) <= MOST_LINES:
                symptoms.setdefault((file, name), Symptom(check.text, file, check.parameters, case.removesuffix("]")))
        return sorted(symptoms.values(), key=lambda one: (bool(one.parameters), len(one.text), one.text))

    async def _draft(self, name: str, mutation: Mutation, tested: Tested, symptoms: Sequence[Symptom]) -> Draft:
        # A fault of which nothing can be told in a few lines has to be shown by the tests.
        visible = self._visible(tested) if self.wanted.hides_tests and symptoms else {}
        broken = tuple(_by_file(tested.fail_to_pass))
        workspace = self.folder / name
        written = {mutation.path: mutation.source, **visible}
        changes = [_change(self.ground.tree, path, text) for path, text in written.items()]
        await asyncio.to_thread(lay_tree, workspace, pristine=self.ground.tree, changes=changes)
        facts = {
            "operator": mutation.operator,
            "function": mutation.function,
            "line": f"{mutation.path}:{mutation.line}",
            "tells": self.wanted.tells,
            "tests_hidden": "yes" if visible else "no",
        }
        return Draft(
            name=name,
            kind="bug",
            candidate=replace(self.ground.candidate, texts=()),
            workspace=workspace,
            solution=(_change(self.ground.tree, mutation.path, mutation.original),),
            hidden_tests=tuple(_change(self.ground.tree, file, _text(self.ground.tree / file)) for file in visible),
            test_files=self.ground.test_files,
            tested=tested,
            environment=self.ground.environment,
            variant="injected",
            instruction=describe(mutation, symptoms, broken, tells=self.wanted.tells, is_hidden=bool(visible)),
            facts=facts,
        )

    def _visible(self, tested: Tested) -> dict[str, str]:
        """Test files without the tests that break; {} if one cannot be cut out."""
        found: dict[str, str] = {}
        for file, functions in _by_file(tested.fail_to_pass).items():
            text = without_functions(_text(self.ground.tree / file), functions)
            if text is None:
                return {}
            found[file] = text
        return found


def _by_file(tests: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for test in tests:
        found[test.partition("::")[0]].add(function_of(test))
    return found


def _change(tree: Path, path: str, text: str) -> FileChange:
    """With the x-bit that it has in this tree."""
    return FileChange(path, "file", stat.S_IMODE((tree / path).stat().st_mode), text.encode())


def _text(path: Path) -> str:
    """As it is, line ends included."""
    return path.read_bytes().decode("utf-8", "replace")


@contextmanager
def _tree(files: Mapping[str, str]) -> Iterator[Path]:
    """A directory of these files alone, which any user can read, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="trunkline-fault-") as folder:
        for name, text in files.items():
            place = Path(folder) / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(text.encode())
        for place in (Path(folder), *Path(folder).rglob("*")):
            place.chmod(0o755 if place.is_dir() else 0o644)
        yield Path(folder)
