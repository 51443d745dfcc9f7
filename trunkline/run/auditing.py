"""`trunkline tasks audit`: attempts of finished runs judged again, each by its task's own verifier. Owns the counts; prints nothing.

journal ─► attempts: when, task, patch, what the run gave ─► each distinct (task, patch) once ─► its verifier ─► counts by moment
                                                                            └─ where asked for ─► its workspace's own tests ─┘

What a run was rewarded for and what was right are two things wherever its rewards came from elsewhere (taskset.options.judged_by).
Verdicts that its recipe keeps in a file are not made again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trunkline.episodes.patch import applicable
from trunkline.errors import ConfigError, SandboxError, TaskError, VerifierError
from trunkline.evals.heldout import succeeded
from trunkline.evals.statistics import proportion
from trunkline.pool.journal_reader import JournalReader
from trunkline.run.certifying import verdict_place
from trunkline.run.judging_work import changes_of_patch
from trunkline.run.recipe import load_recipe
from trunkline.tasks.catalog import load_taskset
from trunkline.tasks.swe.judging import Judges, num_at_once
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.taskset import SweTaskset
from trunkline.types import Episode, Task, Work

Key = tuple[str, str, str]
"""Folder of a task, its id, patch."""


@dataclass(frozen=True)
class Moment:
    """What the attempts of one moment of a run were given, and what they had earned."""

    run: str
    """Its directory."""
    when: str
    """'training', or an evaluation's name, such as 'start' or 'end.greedy'."""
    step: int | None
    """The optimiser step that was filled with it; None of an evaluation."""
    num_attempts: int
    """With a verdict of the run and one of ours."""
    num_rewarded: int
    """That the run gave full reward."""
    num_right: int
    """That the task's own verifier gives full reward."""
    num_fooled: int
    """Rewarded and not right."""
    num_missed: int
    """Right and not rewarded."""
    num_fooling: int | None
    """Not right, and the workspace's own tests end with status 0, whatever the run was rewarded by; None: nobody asked."""
    num_unjudged: int
    """Without a verdict: of the run, or of ours, or whose patch the record cut."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, with 95% Wilson intervals of the rates."""
        rates = {"rewarded": self.num_rewarded, "right": self.num_right, "fooled": self.num_fooled, "fooling": self.num_fooling}
        known = {name: count for name, count in rates.items() if count is not None and self.num_attempts}
        return {**asdict(self), **{name: proportion(count, self.num_attempts).as_dict() for name, count in known.items()}}


@dataclass(frozen=True)
class _Attempt:
    """One of a run's attempts."""

    when: str
    step: int | None
    key: Key
    is_rewarded: bool | None
    """None: the run gave no verdict."""


@dataclass(frozen=True)
class _Found:
    """What our verdicts on one work are."""

    is_right: bool
    """The task's own verifier gives full reward."""
    is_believed: bool | None
    """The workspace's own tests end with status 0; None: not asked, since it is right or nobody wants to know."""


async def audit(
    run_dirs: Sequence[Path], *, own_tests: bool = False, on_step: Callable[[int, int], None] = lambda done, total: None
) -> list[Moment]:
    """Every moment of each run, in order; `on_step` is told how many distinct works are judged, of how many.

    Args:
        run_dirs: Runs or rollouts over software tasks.
        own_tests: Whether to count what fools the workspace's own tests as well, which costs a run of them for each work that is wrong.
        on_step: For progress.

    Raises ConfigError for what is no run over software tasks; TaskError if its tasks are not there any more.
    """
    tasksets = {str(run_dir): _taskset(run_dir) for run_dir in run_dirs}
    runs = {run: _attempts(Path(run), taskset) for run, taskset in tasksets.items()}
    judged_in = {attempt.key: tasksets[run] for run, attempts in runs.items() for attempt in attempts if attempt.is_rewarded is not None}
    verdicts = await _judge_all(judged_in, own_tests, on_step)
    return [moment for run, attempts in runs.items() for moment in _moments(run, attempts, verdicts, own_tests)]


def _taskset(run_dir: Path) -> SweTaskset:
    recipe = load_recipe(run_dir / "recipe.toml")
    taskset = load_taskset(recipe.taskset.name, recipe.taskset.options)
    if not isinstance(taskset, SweTaskset):
        raise ConfigError(f"{run_dir} is a run over taskset {recipe.taskset.name!r}; attempts at software tasks can be judged again")
    return taskset


def _attempts(run_dir: Path, taskset: SweTaskset) -> list[_Attempt]:
    with JournalReader.open(run_dir / "journal.sqlite") as journal:
        # A group without gradient was put aside while the next step was being filled.
        steps = {group_id: step + (reason == "degenerate") for group_id, step, reason in journal.consumed()}
        episodes = {episode.episode_id: episode for episode in journal.episodes()}  # of one that was done again, the last
    found = []
    for episode in episodes.values():
        task = taskset.tasks.get(episode.task_id)
        if task is None:
            raise TaskError(f"{run_dir} has attempts at {episode.task_id}, which is not in taskset.options.paths any more; put it back")
        step = steps.get(episode.group_id)
        found.append(_Attempt(_when(episode, step), step, (str(task.folder), episode.task_id, episode.patch), _is_rewarded(episode)))
    return found


def _when(episode: Episode, step: int | None) -> str:
    """An evaluation's groups are called by its name and a number; what was sampled and never trained on is 'unused'."""
    if step is not None:
        return "training"
    name, dash, number = episode.group_id.rpartition("-")
    return name if dash and number.isdigit() else "unused"


def _is_rewarded(episode: Episode) -> bool | None:
    is_cut = applicable(episode.patch) != episode.patch
    return None if episode.reward is None or is_cut else succeeded(episode)


async def _judge_all(judged_in: Mapping[Key, SweTaskset], own_tests: bool, on_step: Callable[[int, int], None]) -> dict[Key, _Found]:
    """Our verdicts on each work; what gets none is not in it."""
    found: dict[Key, _Found] = {}
    num_done = 0
    gate = asyncio.Semaphore(2 * num_at_once())
    async with verdict_place() as (sandboxes, place):
        judges = Judges.over(sandboxes)

        async def one(key: Key, taskset: SweTaskset) -> None:
            nonlocal num_done
            async with gate:
                verdict = await _judge(replace(taskset, judges=judges, sandboxes=sandboxes), key, place, own_tests)
            if verdict is not None:
                found[key] = verdict
            num_done += 1
            on_step(num_done, len(judged_in))

        async with asyncio.TaskGroup() as group:
            for key in sorted(judged_in):
                group.create_task(one(key, judged_in[key]))
    return found


async def _judge(taskset: SweTaskset, key: Key, place: VerdictPlace, own_tests: bool) -> _Found | None:
    """A failure to judge is none of the others' business."""
    _, task_id, patch = key
    task = Task(task_id, taskset.name, taskset.tasks[task_id].settings.kind, (), {"digest": taskset.seals[task_id].digest})
    try:
        work = Work("", await changes_of_patch(taskset.tasks[task_id], patch.encode(), place))
        is_right = await _is_paid(replace(taskset, judged_by="verifier"), task, work)
        is_believed = await _is_paid(replace(taskset, judged_by="own_tests"), task, work) if own_tests and not is_right else None
    except (VerifierError, SandboxError, ConfigError):
        return None
    return _Found(is_right, is_believed)


async def _is_paid(taskset: SweTaskset, task: Task, work: Work) -> bool:
    (reward,) = await taskset.open(task).verifier.verify(work)
    return reward.value >= 1.0


def _moments(run: str, attempts: Sequence[_Attempt], verdicts: Mapping[Key, _Found], own_tests: bool) -> Iterator[Moment]:
    """Training by steps, then evaluations by name."""
    moments = sorted({(attempt.step is None, attempt.step or 0, attempt.when) for attempt in attempts})
    for is_outside, number, when in moments:
        step = None if is_outside else number
        these = [attempt for attempt in attempts if (attempt.step, attempt.when) == (step, when)]
        judged = [(one.is_rewarded, verdicts[one.key]) for one in these if one.is_rewarded is not None and one.key in verdicts]
        yield Moment(
            run,
            when,
            step,
            num_attempts=len(judged),
            num_rewarded=sum(bool(rewarded) for rewarded, _ in judged),
            num_right=sum(found.is_right for _, found in judged),
            num_fooled=sum(bool(rewarded) and not found.is_right for rewarded, found in judged),
            num_missed=sum(not rewarded and found.is_right for rewarded, found in judged),
            num_fooling=sum(bool(found.is_believed) for _, found in judged) if own_tests else None,
            num_unjudged=len(these) - len(judged),
        )
