"""Two changes of one project as one task: both to be made on the state before the older one. Owns no choice of pairs; that is pairs.py's.

older: workspace + solution, tests ─┐
newer: the patches of both ─────────┴─► fit onto the older? ─► run before, with either, with both ─► Draft

The newer one alone is its lines on the state before the older one. Where both change the same lines, such as a version number, it has
the newer one's: whether that is enough, the tests say. Likewise everywhere in what is neither source nor test, such as a changelog.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trunkline.errors import TaskError
from trunkline.tasks.factory.candidate import Candidate, Order, Rejection
from trunkline.tasks.factory.change import Change
from trunkline.tasks.factory.changed import failing
from trunkline.tasks.factory.consistency import check, interface
from trunkline.tasks.factory.definitions import parsed
from trunkline.tasks.factory.draft import Draft, Tested
from trunkline.tasks.factory.language import Language
from trunkline.tasks.factory.statement import how_checked
from trunkline.tasks.factory.variants.reruns import Bench, compare
from trunkline.tasks.formats.git_patch import apply_patch, merge_text, patch_of
from trunkline.tasks.swe.material import changed_functions
from trunkline.tasks.swe.task import Kind, is_regular
from trunkline.tasks.swe.tree import lay_tree
from trunkline.types import FileChange

OVERLAP = "the changes overlap"


@dataclass(frozen=True)
class Laid:
    """A change, and the state that it starts from."""

    before: Path
    """The project's files."""
    change: Change
    """What it does to them."""

    @classmethod
    def of(cls, draft: Draft) -> Laid:
        """The draft's."""
        return cls(draft.workspace, Change(draft.solution, draft.hidden_tests))


async def check_apart(language: Language, older: Laid, newer: Laid) -> None:
    """Raises Rejection (run) if the changes overlap, at the cost of no run of a test."""
    with tempfile.TemporaryDirectory(prefix="trunkline-merge-") as scratch:
        await asyncio.to_thread(_Trees(Path(scratch), older, newer).lay, language)


async def merge(language: Language, older: Draft, newer: Draft, *, folder: Path, timeout_s: float = 60.0) -> Draft:
    """One task of two mined ones of the same project, whose workspace is written into `folder`; in the newer one's environment.

    Raises:
        Rejection: the changes overlap, the newer changes tests of the older, tests of one are lost, or one change is enough for all
            tests (run); tests ask for what nobody could know (statement).
        SandboxError: tests could not be run.
    """
    if older.candidate.project != newer.candidate.project or older.name == newer.name:
        raise Rejection("run", "not two changes of one project", f"{older.name}, {newer.name}")
    with tempfile.TemporaryDirectory(prefix="trunkline-merge-") as scratch:
        trees = _Trees(Path(scratch), Laid.of(older), Laid.of(newer))
        change = await asyncio.to_thread(trees.lay, language)
        _check_tests(older, trees.both)
        files = tuple(file for file in dict.fromkeys((*older.test_files, *newer.test_files)) if (trees.both / file).is_file())
        tested = await _tested(Bench(language, newer.environment, files, timeout_s), trees, older, newer)
    name = f"{older.name}-and-{newer.name.rpartition('-')[2]}"
    workspace = folder / name
    await asyncio.to_thread(lay_tree, workspace, pristine=older.workspace)
    merged = Draft(
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
        facts={"merged": f"{older.name}, {newer.name}"},
    )
    return replace(merged, instruction=_instruction(older, newer, merged))


async def _tested(bench: Bench, trees: _Trees, older: Draft, newer: Draft) -> Tested:
    """What all runs say. Raises Rejection."""
    after = await bench.several(trees.both)
    before = await bench.several(trees.none)
    for run in (*after, *before):
        if run.complaint:
            raise Rejection("run", "tests do not run", run.complaint)
    tested = _of_both(compare(before, after), older.tested, newer.tested)
    turning = set(tested.fail_to_pass)
    for one in (older, newer):
        if lost := [name for name in one.tested.fail_to_pass if name not in turning]:
            raise Rejection("run", "tests of one change are lost", f"{one.name}: {len(lost)} no longer turn, such as {lost[0]}")
    for one, tree in ((newer, trees.older_only), (older, trees.newer_only)):
        if turning <= (await bench.run(tree)).passed:
            raise Rejection("run", "one change is enough", f"without that of {one.name} all tests pass")
    return tested


def _of_both(found: Tested, *mined: Tested) -> Tested:
    """Without tests that neither change is judged by: they are slow, or nobody can judge them."""
    judged = {name for one in mined for name in (*one.fail_to_pass, *one.pass_to_pass)}
    turning, holding, new = (
        tuple(name for name in names if name in judged) for names in (found.fail_to_pass, found.pass_to_pass, found.new_tests)
    )
    return Tested(turning, holding, new, found.quarantined)


def _check_tests(older: Draft, both: Path) -> None:
    """What the older statement says of its tests has to be true of the merged ones. Raises Rejection."""
    known = {change.path: change.content.decode(errors="replace") for change in older.hidden_tests if change.kind == "file"}
    for path, functions in failing(older).items():
        before = known[path] if path in known else _text(older.workspace / path)
        after = _text(both / path)
        if parsed(before) is None or parsed(after) is None:
            continue
        if changed := {name.replace(".", "::") for name in changed_functions(before, after)}.intersection(functions):
            raise Rejection("run", "the newer changes tests of the older", f"{path}: {', '.join(sorted(changed))[:200]}")


def _text(place: Path) -> str:
    return place.read_bytes().decode(errors="replace") if place.is_file() else ""


@dataclass(frozen=True)
class _Trees:
    """The states that are run, all with the tests of both changes."""

    folder: Path
    older: Laid
    newer: Laid

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
        before, older, newer = self.older.before, self.older.change, self.newer.change
        self.folder.chmod(0o755)
        tests = _patch(newer.hidden_tests, self.newer.before)
        sources = [one for one in newer.solution if language.role_of(one.path) == "source"]
        others = [one for one in newer.solution if language.role_of(one.path) != "source"]
        for tree, solved in ((self.none, ()), (self.older_only, older.solution)):
            lay_tree(tree, pristine=before, changes=(*solved, *older.hidden_tests))
            _apply(tests, tree)
        lay_tree(self.both, pristine=self.older_only, changes=[self._onto(self.older_only, one) for one in others])
        _apply(_patch(sources, self.newer.before), self.both)
        lay_tree(self.newer_only, pristine=self.none, changes=[self._onto(self.none, one) for one in newer.solution])
        return Change.between(before, self.both, language)

    def _onto(self, tree: Path, change: FileChange) -> FileChange:
        """What the newer change makes of a file as another state has it."""
        ours, base = tree / change.path, self.newer.before / change.path
        if change.kind != "file" or not (is_regular(ours) and is_regular(base)):
            return change
        return replace(change, content=merge_text(ours.read_bytes(), base.read_bytes(), change.content))


def _patch(changes: Sequence[FileChange], before: Path) -> str:
    try:
        return patch_of(changes, before)
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
    facts = {name: value for name, value in newer.facts.items() if older.facts.get(name) == value}
    texts = (*older.texts, *newer.texts)
    return replace(newer, candidate_id=Order(older, newer).order_id, before=older.before, texts=texts, facts=facts)


def _instruction(older: Draft, newer: Draft, merged: Draft) -> str:
    """Both, if both are there, and what neither says since the newer one was told to who has the older one. Raises Rejection."""
    if not older.instruction or not newer.instruction:
        return ""
    first, second = (one.instruction.replace(how_checked(one), "").strip() for one in (older, newer))
    text = f"Two things are to be done.\n\n---\n\n{first}\n\n---\n\n{second}\n\n---"
    return "\n\n".join(part for part in (text, interface(check(merged, text)), how_checked(merged)) if part) + "\n"
