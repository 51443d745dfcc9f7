"""Two changes of one project as one task: both to be made on the state before the older one. Owns no statement.

older: workspace + solution, tests ─┐
newer: the patches of both ─────────┴─► apply, also without the older one? ─► run before, with either, with both ─► Draft
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trunkline.errors import TaskError
from trunkline.tasks.factory.candidate import Candidate, Rejection
from trunkline.tasks.factory.change import Change
from trunkline.tasks.factory.draft import Draft, Tested
from trunkline.tasks.factory.language import Language
from trunkline.tasks.factory.variants.reruns import Bench, compare
from trunkline.tasks.formats.git_patch import apply_patch, patch_of
from trunkline.tasks.swe.task import Kind
from trunkline.tasks.swe.tree import lay_tree
from trunkline.types import FileChange

OVERLAP = "the changes overlap"


async def merge(language: Language, older: Draft, newer: Draft, *, folder: Path, timeout_s: float = 60.0) -> Draft:
    """One task of two mined ones of the same project, whose workspace is written into `folder`; in the newer one's environment.

    Raises Rejection (run): the changes overlap, or one of them is enough for all tests, or tests of one are lost; SandboxError.
    """
    if older.candidate.project != newer.candidate.project or older.name == newer.name:
        raise Rejection("run", "not two changes of one project", f"{older.name}, {newer.name}")
    with tempfile.TemporaryDirectory(prefix="trunkline-merge-") as scratch:
        trees = _Trees(Path(scratch), older, newer)
        change = await asyncio.to_thread(trees.lay, language)
        files = tuple(file for file in dict.fromkeys((*older.test_files, *newer.test_files)) if (trees.both / file).is_file())
        tested = await _tested(Bench(language, newer.environment, files, timeout_s), trees, older, newer)
    name = f"{older.name}-and-{newer.name.rpartition('-')[2]}"
    workspace = folder / name
    await asyncio.to_thread(lay_tree, workspace, pristine=older.workspace)
    return Draft(
        name=name,
        kind=_kind(older.kind, newer.kind),
        candidate=_candidate(older.candidate, newer.candidate),
        workspace=workspace,
        solution=change.solution,
        hidden_tests=change.hidden_tests,
        test_files=files,
        tested=tested,
        environment=newer.environment,
        variant="merged",
        instruction=_instruction(older, newer),
        facts={"merged": f"{older.name}, {newer.name}"},
    )


async def _tested(bench: Bench, trees: _Trees, older: Draft, newer: Draft) -> Tested:
    """What all runs say. Raises Rejection."""
    after = await bench.several(trees.both)
    before = await bench.several(trees.none)
    for run in (*after, *before):
        if run.complaint:
            raise Rejection("run", "tests do not run", run.complaint)
    tested = compare(before, after)
    turning = set(tested.fail_to_pass)
    for one in (older, newer):
        if not turning.intersection(one.tested.fail_to_pass):
            raise Rejection("run", "tests of one change are lost", one.name)
    for one, tree in ((newer, trees.older_only), (older, trees.newer_only)):
        if turning <= (await bench.run(tree)).passed:
            raise Rejection("run", "one change is enough", f"without that of {one.name} all tests pass")
    return tested


@dataclass(frozen=True)
class _Trees:
    """The states that are run, all with the tests of both changes."""

    folder: Path
    older: Draft
    newer: Draft

    @property
    def none(self) -> Path:
        return self.folder / "none"

    @property
    def both(self) -> Path:
        return self.folder / "both"

    @property
    def older_only(self) -> Path:
        return self.folder / "older"

    @property
    def newer_only(self) -> Path:
        return self.folder / "newer"

    def lay(self, language: Language) -> Change:
        """Writes them; returns what both changes do to the older workspace. Raises Rejection."""
        older, newer = self.older, self.newer
        self.folder.chmod(0o755)
        tests = _patch(newer.hidden_tests, newer)
        solution = _patch(newer.solution, newer)
        for tree, solved in ((self.none, ()), (self.older_only, older.solution)):
            lay_tree(tree, pristine=older.workspace, changes=(*solved, *older.hidden_tests))
            _apply(tests, tree)
        for tree, base in ((self.newer_only, self.none), (self.both, self.older_only)):
            lay_tree(tree, pristine=base)
            _apply(solution, tree)
        return Change.between(older.workspace, self.both, language)


def _patch(changes: Sequence[FileChange], draft: Draft) -> str:
    try:
        return patch_of(changes, draft.workspace)
    except TaskError as error:
        raise Rejection("run", OVERLAP, str(error)) from None


def _apply(patch: str, tree: Path) -> None:
    try:
        apply_patch(patch, tree, what="the newer change")
    except TaskError as error:
        raise Rejection("run", OVERLAP, str(error).splitlines()[0][:200]) from None
    for place in tree.rglob("*"):  # what git writes, any user has to be able to change
        if not place.is_symlink():
            place.chmod(0o777 if place.is_dir() or place.stat().st_mode & 0o100 else 0o666)


def _kind(older: Kind, newer: Kind) -> Kind:
    return older if older == newer else "feature"


def _candidate(older: Candidate, newer: Candidate) -> Candidate:
    texts = (*older.texts, *newer.texts)
    return replace(newer, candidate_id=f"{older.candidate_id}-and-{newer.candidate_id}", before=older.before, texts=texts)


def _instruction(older: Draft, newer: Draft) -> str:
    """Both, if both are there; the statement of a merged task needs nothing else."""
    if not older.instruction or not newer.instruction:
        return ""
    return f"Two things are to be done, which have nothing to do with each other.\n\n---\n\n{older.instruction}\n---\n\n{newer.instruction}"
