"""A change turned round: the agent writes the tests that notice it, its own are the solution. Owns no verdict (tasks/swe/inversion).

change ─► its tests, cut to those that turn ─► pass after, fail before in their bodies?
      └─► faults in what it rewrites ─► run ─► those that its tests notice ─► up to three wrong versions ─► Draft
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import tomli_w

from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.draft import Draft, Tested
from trunkline.tasks.factory.language import Language, Results
from trunkline.tasks.factory.variants.added import WithMore
from trunkline.tasks.factory.variants.checks import function_of, without_functions
from trunkline.tasks.factory.variants.mutations import Mutation
from trunkline.tasks.factory.variants.reruns import Bench
from trunkline.tasks.factory.variants.wrong_versions import changed_sources, wrong_versions
from trunkline.tasks.swe.inversion.parts import AFTER, MOST_WRONG, SETTINGS, WRONG
from trunkline.tasks.swe.inversion.screen import MODULES, used_by
from trunkline.tasks.swe.inversion.verifier import MOST_BYTES, MOST_FILES
from trunkline.tasks.swe.task import is_regular, is_test_module, walk
from trunkline.tasks.swe.tree import lay_tree
from trunkline.types import FileChange

_INSTRUCTION = """\
Write tests that show the following fault, or that this is missing. Do not mend it: only test files are judged.

---

{statement}

---

Judged is every `test_*.py` or `*_test.py` that you add or change, at most {most_files} files; a new file is best. pytest runs them

- on the project as it is: at least one test must fail in its body, by an assert or by what the project's code raises. A file that
  cannot be loaded and a name that is missing do not count;
- on the project with the change, written in several ways: every test must pass, among them the one that failed;
- on wrong versions of the change: at least half of them must make a test fail. So say exactly what is right, not only that the old
  answer is wrong.

Test what the code does. Tests that look at its text, at files, the clock or chance are not run: they may import the project, what its
own tests import, `pytest`, and such modules of the standard library as {modules}.{more}
"""
_SHOWN_MODULES = ("collections", "copy", "datetime", "decimal", "functools", "io", "itertools", "json", "math", "re", "typing", "unittest")


@dataclass(frozen=True)
class Inverting:
    """What is wanted of a task turned round."""

    most_wrong: int = MOST_WRONG
    """Wrong versions at most; each costs a run at every verdict."""
    most_tries: int = 24
    """Faults that are tried at most; each costs a run of the change's tests."""
    timeout_s: float = 60.0
    """Of a run."""


async def invert(language: Language, draft: Draft, *, folder: Path, rng: random.Random, wanted: Inverting = Inverting()) -> Draft:
    """The task of writing the tests. Its workspace is made in `folder`.

    Args:
        language: Runs the tests.
        draft: A valid change with hidden tests and an instruction.
        folder: A directory that is there.
        rng: Draws which faults are tried first.
        wanted: Limits.

    Raises Rejection: 'no such variant in this language' (select), 'nothing says what to do' (statement), 'its tests are no secret',
    'its tests alone do not hold', 'its tests do not fail in their bodies', 'no wrong version is noticed' (run), 'odd files', 'too
    large' (write); SandboxError.
    """
    if language.name != "python":
        raise Rejection("select", "no such variant in this language", f"faults are known for Python, not for {language.name}")
    if not draft.instruction.strip():
        raise Rejection("statement", "nothing says what to do", "an instruction of the change is needed to turn it round")
    tests = _own_tests(draft)
    name = f"{draft.name}-tests"
    workspace = folder / name
    others = [change for change in draft.hidden_tests if change.path not in tests]
    await asyncio.to_thread(lay_tree, workspace, pristine=draft.workspace, changes=others)
    oracle = tuple(FileChange(path, "file", 0o644, text.encode()) for path, text in tests.items())
    bench = Bench(language, draft.environment, tuple(tests), wanted.timeout_s)
    with tempfile.TemporaryDirectory(prefix="trunkline-invert-") as scratch:
        trees = _Trees(Path(scratch), workspace, draft.solution, oracle)
        await asyncio.to_thread(trees.lay)
        await _require_turning(bench, trees, draft.tested.fail_to_pass)
        found = await _noticed(bench, trees, draft, rng, wanted)
    if not found:
        raise Rejection("run", "no wrong version is noticed", "no fault in what the change rewrites makes its tests fail")
    return replace(
        draft,
        name=name,
        kind="tests",
        workspace=workspace,
        solution=oracle,
        hidden_tests=(),
        test_files=(),
        tested=Tested((), (), quarantined=draft.tested.quarantined),
        environment=WithMore(draft.environment, _files(draft, workspace, tests, found), {"verifier": "inversion"}),
        variant="inverted",
        instruction=_instruction(draft.instruction, tests),
        heldout="",
        facts={**draft.facts, "inverted": draft.name, "wrong_versions": "; ".join(_in_words(one) for one in found)},
    )


@dataclass(frozen=True)
class _Trees:
    folder: Path
    workspace: Path
    solution: Sequence[FileChange]
    oracle: Sequence[FileChange]

    @property
    def before(self) -> Path:
        return self.folder / "before"

    @property
    def after(self) -> Path:
        return self.folder / "after"

    def lay(self) -> None:
        lay_tree(self.before, pristine=self.workspace, changes=self.oracle)
        lay_tree(self.after, pristine=self.workspace, changes=(*self.solution, *self.oracle))

    def over(self, mutation: Mutation, number: int) -> Path:
        """A tree of one file, the fault in it."""
        empty = self.folder / "empty"
        empty.mkdir(exist_ok=True)
        lay_tree(
            self.folder / f"wrong-{number}", pristine=empty, changes=[FileChange(mutation.path, "file", 0o644, mutation.source.encode())]
        )
        return self.folder / f"wrong-{number}"


def _own_tests(draft: Draft) -> dict[str, str]:
    """Test files of the change, cut to the tests that turn. Raises Rejection if there is none, or too much."""
    turning: dict[str, set[str]] = {}
    for test in draft.tested.fail_to_pass:
        turning.setdefault(test.partition("::")[0], set()).add(function_of(test))
    known = {*draft.tested.pass_to_pass, *draft.tested.quarantined}
    found: dict[str, str] = {}
    for change in draft.hidden_tests:
        if change.kind == "file" and change.path in turning and is_test_module(change.path):
            text = change.content.decode("utf-8", "replace")
            others = {function_of(test) for test in known if test.partition("::")[0] == change.path} - turning[change.path]
            found[change.path] = (without_functions(text, others) if others else None) or text
    if not found:
        raise Rejection("run", "its tests are no secret", "the tests that turn are in the workspace already")
    if len(found) > MOST_FILES or sum(len(text.encode()) for text in found.values()) > MOST_BYTES:
        raise Rejection("write", "too large", f"{len(found)} test files; at most {MOST_FILES} with {MOST_BYTES:,} bytes are judged")
    return found


async def _require_turning(bench: Bench, trees: _Trees, turning: Sequence[str]) -> None:
    after = await bench.several(trees.after)
    for run in after:
        if run.complaint or run.faults or not set(run.outcomes) <= run.passed | _skipped(run) or not run.passed & set(turning):
            bad = sorted(set(run.outcomes) - run.passed)
            raise Rejection("run", "its tests alone do not hold", run.complaint or next(iter((*run.faults.values(), *bad)), "none passes"))
    before = await bench.run(trees.before)
    if before.complaint or before.faults or not any(ended == "failed" for ended in before.outcomes.values()):
        detail = before.complaint or next(iter(before.faults.values()), "none fails")
        raise Rejection("run", "its tests do not fail in their bodies", detail)


async def _noticed(bench: Bench, trees: _Trees, draft: Draft, rng: random.Random, wanted: Inverting) -> list[Mutation]:
    """Faults that the change's tests notice in their bodies, on different lines if there are enough."""
    found: list[Mutation] = []
    sources = changed_sources(draft.solution, trees.workspace)
    candidates = await asyncio.to_thread(wrong_versions, sources, rng)
    for number, mutation in enumerate(candidates[: wanted.most_tries]):
        if len(found) == wanted.most_wrong:
            break
        run = await bench.run(trees.after, await asyncio.to_thread(trees.over, mutation, number))
        if not run.complaint and not run.faults and "failed" in run.outcomes.values():
            found.append(mutation)
    return found


def _skipped(run: Results) -> set[str]:
    return {name for name, ended in run.outcomes.items() if ended in ("skipped", "xfailed")}


def _files(draft: Draft, workspace: Path, tests: Mapping[str, str], found: Sequence[Mutation]) -> dict[str, str]:
    """What the verdict needs of the change. Raises Rejection for what is no text."""
    features, modules = used_by(tests.values())
    deleted = [change.path for change in draft.solution if change.kind == "deleted"]
    settings = {"deleted": deleted, "modules": sorted(modules - MODULES), "features": sorted(features)}
    texts = {
        SETTINGS: tomli_w.dumps({name: value for name, value in settings.items() if value} or {"deleted": []}),
        "tests/test.sh": "#!/bin/sh\nexec python3 /tests/on_two_trees.py\n",
        "tests/on_two_trees.py": (files("trunkline.tasks.factory.variants") / "on_two_trees.py").read_text("utf-8"),
        "tests/pristine.txt": "".join(f"{line}\n" for line in _known_tests(workspace)),
    }
    for change in draft.solution:
        if change.kind == "file":
            try:
                texts[f"{AFTER}/{change.path}"] = change.content.decode()
            except UnicodeDecodeError:
                raise Rejection("write", "odd files", f"{change.path} is no text") from None
    for number, mutation in enumerate(found, 1):
        texts[f"{WRONG}/{number}/{mutation.path}"] = mutation.source
    return texts


def _known_tests(workspace: Path) -> Iterator[str]:
    """Digest and path of each test module that is not written by the agent."""
    for path in walk(workspace):
        if is_regular(path) and is_test_module(path.name):
            yield f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(workspace).as_posix()}"


def _instruction(statement: str, tests: Mapping[str, str]) -> str:
    features, modules = used_by(tests.values())
    further = sorted(modules - MODULES)
    more = f" Also allowed: {', '.join(f'`{name}`' for name in (*further, *sorted(features)))}." if further or features else ""
    shown = ", ".join(f"`{name}`" for name in _SHOWN_MODULES)
    return _INSTRUCTION.format(statement=statement.strip(), most_files=MOST_FILES, modules=shown, more=more)


def _in_words(mutation: Mutation) -> str:
    return f"{mutation.path}:{mutation.line} {mutation.operator}"
