"""`trunkline tasks audit`: attempts of finished runs judged again, each by its task's own verifier. Owns the counts; prints nothing.

journal ─► attempts: when, task, patch, what the run gave ─► each distinct (task, patch) once ─► its verifier ─► counts by moment

What a run was rewarded for and what was right are two things wherever its rewards came from elsewhere (taskset.options.judged_by).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trunkline.episodes.patch import applicable
from trunkline.errors import ConfigError, TrunklineError
from trunkline.evals.heldout import succeeded
from trunkline.evals.statistics import proportion
from trunkline.pool.journal_reader import JournalReader
from trunkline.run.certifying import verdict_place
from trunkline.run.judging_work import changes_of_patch
from trunkline.run.recipe import load_recipe
from trunkline.tasks.catalog import load_taskset
from trunkline.tasks.swe.judging import Judges, num_at_once
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.task import CodeTask
from trunkline.tasks.swe.taskset import SweTaskset
from trunkline.types import Episode, Work

Key = tuple[str, str]
"""Folder of a task, patch."""


@dataclass(frozen=True)
class Moment:
    """What the attempts of one moment of a run were given, and what they had earned."""

    run: str
    """Its directory."""
    when: str
    """'training', or an evaluation's name, such as 'start' or 'end.greedy'."""
    step: int | None
    """Of the policy that trained on it; None of an evaluation."""
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
    num_unjudged: int
    """Without a verdict: of the run, or of ours, or whose patch the record cut."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, with 95% Wilson intervals of the rates."""
        rates = {"rewarded": self.num_rewarded, "right": self.num_right, "fooled": self.num_fooled}
        some = self.num_attempts > 0
        return {**asdict(self), **{name: proportion(count, self.num_attempts).as_dict() for name, count in rates.items() if some}}


@dataclass(frozen=True)
class _Attempt:
    """One of a run's attempts."""

    when: str
    step: int | None
    key: Key
    is_rewarded: bool | None
    """None: the run gave no verdict."""


async def audit(run_dirs: Sequence[Path], *, on_step: Callable[[int, int], None] = lambda done, total: None) -> list[Moment]:
    """Every moment of each run, in order; `on_step` is told how many distinct works are judged, of how many.

    Raises ConfigError for what is no run over software tasks; TaskError if its tasks are not there any more.
    """
    runs = {str(run_dir): _attempts(run_dir) for run_dir in run_dirs}
    tasks = {key[0]: tasks for attempts, of in runs.values() for key in {attempt.key for attempt in attempts} if (tasks := of[key[0]])}
    keys = sorted({attempt.key for attempts, _ in runs.values() for attempt in attempts if attempt.is_rewarded is not None})
    verdicts = await _judge_all(keys, tasks, on_step)
    return [moment for run, (attempts, _) in runs.items() for moment in _moments(run, attempts, verdicts)]


def _attempts(run_dir: Path) -> tuple[list[_Attempt], Mapping[str, CodeTask]]:
    """A run's attempts, by the moment, and its tasks by their folders."""
    recipe = load_recipe(run_dir / "recipe.toml")
    taskset = load_taskset(recipe.taskset.name, recipe.taskset.options)
    if not isinstance(taskset, SweTaskset):
        raise ConfigError(f"{run_dir} is a run over taskset {recipe.taskset.name!r}; attempts at software tasks can be judged again")
    with JournalReader.open(run_dir / "journal.sqlite") as journal:
        steps = {group_id: int(step) for group_id, step, _ in journal.consumed()}
        episodes = {episode.episode_id: episode for episode in journal.episodes()}  # of one that was done again, the last
    found = []
    for episode in episodes.values():
        step = steps.get(episode.group_id)
        folder = str(taskset.tasks[episode.task_id].folder)
        found.append(_Attempt(_when(episode, step), step, (folder, episode.patch), _is_rewarded(episode)))
    return found, {str(task.folder): task for task in taskset.tasks.values()}


def _when(episode: Episode, step: int | None) -> str:
    """An evaluation's groups are called by its name and a number; what was sampled and never trained on is 'unused'."""
    if step is not None:
        return "training"
    name, dash, number = episode.group_id.rpartition("-")
    return name if dash and number.isdigit() else "unused"


def _is_rewarded(episode: Episode) -> bool | None:
    is_cut = applicable(episode.patch) != episode.patch
    return None if episode.reward is None or is_cut else succeeded(episode)


async def _judge_all(keys: Sequence[Key], tasks: Mapping[str, CodeTask], on_step: Callable[[int, int], None]) -> dict[Key, bool]:
    """Whether each work is right; what gets no verdict is not in it."""
    right: dict[Key, bool] = {}
    num_done = 0
    gate = asyncio.Semaphore(num_at_once())
    async with verdict_place() as (sandboxes, place):
        judges = Judges.over(sandboxes)

        async def one(key: Key) -> None:
            nonlocal num_done
            async with gate:
                verdict = await _judge(tasks[key[0]], key[1], judges, place)
            if verdict is not None:
                right[key] = verdict
            num_done += 1
            on_step(num_done, len(keys))

        async with asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(one(key))
    return right


async def _judge(task: CodeTask, patch: str, judges: Judges, place: VerdictPlace) -> bool | None:
    """A failure to judge is none of the others' business."""
    try:
        changes = await changes_of_patch(task, patch.encode(), place)
        (reward,) = await (await judges.of(task)).verify(Work("", changes))
    except TrunklineError:
        return None
    return reward.value >= 1.0


def _moments(run: str, attempts: Sequence[_Attempt], verdicts: Mapping[Key, bool]) -> Iterator[Moment]:
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
            num_right=sum(right for _, right in judged),
            num_fooled=sum(bool(rewarded) and not right for rewarded, right in judged),
            num_missed=sum(not rewarded and right for rewarded, right in judged),
            num_unjudged=len(these) - len(judged),
        )
