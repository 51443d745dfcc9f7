"""A change to be reviewed: four proposals of it, some with a fault, some only in other words. Owns the variant; review_judge.py judges.

change ─► faults in what it rewrites ─► run ─► those that tests notice ────┐
      └─► the same in other words ─► run ─► those that all tests let pass ─┴─► four proposals, neither all right nor all wrong ─► Draft

Each proposal differs from the change in one place, so that the odd one out is not the faulty one. Whoever guesses, or always says the
same, has to be right four times: once in 10 to 14, or less often, since of a fault the place is asked, too.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.draft import Draft, Tested
from trunkline.tasks.factory.language import Language
from trunkline.tasks.factory.variants.added import WithMore
from trunkline.tasks.factory.variants.equivalents import Equivalent, find_equivalents
from trunkline.tasks.factory.variants.mutations import Mutation
from trunkline.tasks.factory.variants.reruns import Bench
from trunkline.tasks.factory.variants.wrong_versions import changed_sources, functions_changed, wrong_versions
from trunkline.tasks.formats.git_patch import patch_of
from trunkline.tasks.swe.tree import lay_tree
from trunkline.types import FileChange

NUM_PROPOSALS = 4
REVIEW = "REVIEW.json"
_FOLDER = "proposals"
_LEAST_PATTERNS = 8
"""Whoever guesses which proposals are wrong is right no more often than once in so many times."""
_SLACK = 3
"""Lines about a fault that are taken for its place."""
_INSTRUCTION = """\
Review {num} proposals of one change. What the change is for:

---

{statement}

---

The workspace is the project before the change. Each proposal is a patch of it: {names}. They differ in details. At
least one is right, and at least one has a defect: with it, the project does not do what the change is for, or something else no more
that it did before. How a proposal is written does not matter, only what it does. They come without their tests. You may apply them
(`patch -p1 < {first}`) and run what you like; nothing is judged but the file `{review}` in the top directory, which you write:

```json
{{"1": {{"verdict": "approve"}}, "2": {{"verdict": "defect", "path": "package/module.py", "line": 12}}, ...}}
```

It has an entry for each proposal. `line` is where the defect is, counted from 1 in the file as the proposal leaves it; {slack} lines
more or less do not matter. The review counts if all {num} entries are right.
"""


@dataclass(frozen=True)
class Reviewing:
    """What is wanted of a review."""

    most_tries: int = 24
    """Faults, and as many other words, that are tried at most; each costs a run of the tests."""
    timeout_s: float = 60.0
    """Of a run."""


@dataclass(frozen=True)
class Proposal:
    """One version of a change."""

    path: str
    """The file in which it differs from the change."""
    source: str
    """That file, whole."""
    line: int
    """Where."""
    words: str
    """What was done there."""
    is_wrong: bool
    """Whether that is a fault."""


async def review(language: Language, draft: Draft, *, folder: Path, rng: random.Random, wanted: Reviewing = Reviewing()) -> Draft:
    """The task of reviewing a change. Its workspace is made in `folder`, a directory that is there.

    Raises Rejection: 'no such variant in this language' (select), 'nothing says what to do' (statement), 'its tests do not hold', 'too few
    versions that are wrong', 'too few versions that are right' (run); SandboxError.
    """
    if language.name != "python":
        raise Rejection("select", "no such variant in this language", f"faults are known for Python, not for {language.name}")
    if not draft.instruction.strip():
        raise Rejection("statement", "nothing says what to do", "an instruction of the change is needed for its review")
    sources = changed_sources(draft.solution, draft.workspace)
    with tempfile.TemporaryDirectory(prefix="trunkline-review-") as scratch:
        bench = Bench(language, draft.environment, draft.test_files, wanted.timeout_s)
        trials = await _Trials.begin(bench, draft, Path(scratch))
        wrong = await trials.choose(_wrong(sources, rng), wanted.most_tries)
        right = await trials.choose(_right(sources, rng), wanted.most_tries)
    pattern = rng.choice(_patterns(len(wrong), len(right)))
    proposals = [(wrong if is_wrong else right).pop() for is_wrong in pattern]
    return await asyncio.to_thread(_draft, draft, proposals, folder)


@dataclass
class _Trials:
    """Runs versions of a change."""

    bench: Bench
    after: Path
    scratch: Path
    passing: frozenset[str]
    num_runs: int = 0

    @classmethod
    async def begin(cls, bench: Bench, draft: Draft, scratch: Path) -> _Trials:
        after = scratch / "after"
        await asyncio.to_thread(lay_tree, after, pristine=draft.workspace, changes=(*draft.solution, *draft.hidden_tests))
        runs = await bench.several(after)
        passing = frozenset.intersection(*(run.passed for run in runs))
        if any(run.complaint for run in runs) or not passing:
            raise Rejection("run", "its tests do not hold", runs[-1].complaint or "none passes")
        return cls(bench, after, scratch, passing)

    async def choose(self, candidates: Iterator[Proposal], most_tries: int) -> list[Proposal]:
        """As many as could be needed of those that are what they should be, each in a place of its own."""
        found: dict[tuple[str, int], Proposal] = {}
        for proposal in itertools.islice(candidates, most_tries):
            if len(found) == NUM_PROPOSALS - 1:
                break
            if (proposal.path, proposal.line) not in found and await self._is_so(proposal):
                found[proposal.path, proposal.line] = proposal
        return list(found.values())

    async def _is_so(self, proposal: Proposal) -> bool:
        self.num_runs += 1
        over = self.scratch / f"over-{self.num_runs}"
        empty = self.scratch / "empty"
        empty.mkdir(exist_ok=True)
        changes = [FileChange(proposal.path, "file", 0o644, proposal.source.encode())]
        await asyncio.to_thread(lay_tree, over, pristine=empty, changes=changes)
        run = await self.bench.run(self.after, over)
        if run.complaint or run.faults:
            return False
        return bool(self.passing - run.passed) == proposal.is_wrong


def _patterns(num_wrong: int, num_right: int) -> list[tuple[bool, ...]]:
    """Which proposals may be the wrong ones, with so many of each kind at hand. Raises Rejection if a guess would be too good."""
    every = [one for one in itertools.product((False, True), repeat=NUM_PROPOSALS) if len(set(one)) > 1]
    found = [one for one in every if sum(one) <= num_wrong and NUM_PROPOSALS - sum(one) <= num_right]
    if len(found) < _LEAST_PATTERNS:
        kind = "wrong" if num_wrong <= num_right else "right"
        raise Rejection("run", f"too few versions that are {kind}", f"{num_wrong} are wrong, {num_right} are right")
    return found


def _wrong(sources: Mapping[str, tuple[str, str]], rng: random.Random) -> Iterator[Proposal]:
    for one in wrong_versions(dict(sources), rng):
        yield _proposal(one, is_wrong=True)


def _right(sources: Mapping[str, tuple[str, str]], rng: random.Random) -> Iterator[Proposal]:
    """One of each way to write it otherwise, then a second one of each."""
    by_operator: dict[str, list[Equivalent]] = {}
    for path, names in functions_changed(dict(sources)).items():
        for one in find_equivalents(sources[path][1], path=path, functions=names):
            by_operator.setdefault(one.operator, []).append(one)
    groups = [rng.sample(group, len(group)) for group in by_operator.values()]
    rng.shuffle(groups)
    for turn in itertools.zip_longest(*groups):
        yield from (_proposal(one, is_wrong=False) for one in turn if one is not None)


def _proposal(version: Mutation | Equivalent, *, is_wrong: bool) -> Proposal:
    return Proposal(version.path, version.source, version.line, f"{version.path}:{version.line} {version.operator}", is_wrong)


def _draft(draft: Draft, proposals: Sequence[Proposal], folder: Path) -> Draft:
    name = f"{draft.name}-review"
    patches, answers = {}, {}
    for number, proposal in enumerate(proposals, 1):
        changes = [
            replace(change, content=proposal.source.encode()) if change.path == proposal.path else change for change in draft.solution
        ]
        patches[f"{_FOLDER}/{number}.patch"] = patch_of(changes, draft.workspace)
        first, last = proposal.line - _SLACK, proposal.line + _SLACK
        answers[str(number)] = {"path": proposal.path, "first": first, "last": last} if proposal.is_wrong else None
    changes = [FileChange(path, "file", 0o644, text.encode("utf-8", "surrogateescape")) for path, text in patches.items()]
    lay_tree(folder / name, pristine=draft.workspace, changes=changes)
    return replace(
        draft,
        name=name,
        kind="review",
        workspace=folder / name,
        solution=(FileChange(REVIEW, "file", 0o644, _review(proposals).encode()),),
        hidden_tests=(),
        test_files=(),
        tested=Tested((), ()),
        environment=WithMore(draft.environment, _files(answers), {"verifier": "script", "allow": [REVIEW]}),
        variant="review",
        instruction=_INSTRUCTION.format(
            num=NUM_PROPOSALS,
            statement=draft.instruction.strip(),
            names=", ".join(f"`{path}`" for path in patches),
            first=next(iter(patches)),
            review=REVIEW,
            slack=_SLACK,
        ),
        heldout="",
        facts={**draft.facts, "reviewed": draft.name, "proposals": "; ".join(_in_words(one) for one in proposals)},
    )


def _files(answers: Mapping[str, object]) -> dict[str, str]:
    return {
        "tests/test.sh": "#!/bin/sh\nexec python3 -I /tests/judge.py\n",
        "tests/judge.py": (files("trunkline.tasks.factory.variants") / "review_judge.py").read_text("utf-8"),
        "tests/answers.json": json.dumps(answers, indent=1) + "\n",
    }


def _review(proposals: Sequence[Proposal]) -> str:
    """The right one."""
    said = {
        str(number): {"verdict": "defect", "path": one.path, "line": one.line} if one.is_wrong else {"verdict": "approve"}
        for number, one in enumerate(proposals, 1)
    }
    return json.dumps(said, indent=1) + "\n"


def _in_words(proposal: Proposal) -> str:
    return f"{'wrong' if proposal.is_wrong else 'right'}, {proposal.words}"
