"""Brings a resumed run to where it goes on from. Owns which checkpoint that is and what is told of it; no file format, no loop.

newest checkpoint that restores, else the one before, else the cold start ─► backlog from the journal ─► weights to the engine
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import TrainerError
from trunkline.pool.backlog import Backlog, KilledCalls
from trunkline.pool.config import PoolConfig
from trunkline.pool.journal_reader import JournalReader
from trunkline.pool.resume import read_backlog
from trunkline.run.history import RunHistory
from trunkline.run.stages import Bench, publish
from trunkline.run.wiring import RolloutSide


@dataclass(frozen=True)
class _Restored:
    """What the trainer holds."""

    step: int
    """Optimiser steps of RL behind it; 0 is the cold start."""
    folder: Path | None
    """Where it comes from; None for the cold start."""


async def restore(bench: Bench, rollout: RolloutSide, history: RunHistory) -> Backlog:
    """Brings trainer and engine to the newest usable checkpoint; returns what is left to do from there.

    Checkpoints that do not restore are passed over with a warning; with none left, RL is trained again from the cold start on, on
    what the journal has. Raises ConfigError if the journal does not fit.
    """
    restored = await _restore_trainer(bench, rollout.journal.path)
    backlog = await asyncio.to_thread(_read_backlog, rollout.journal.path, restored.step, bench.recipe.pool)
    if restored.step:
        await publish(bench, rollout, restored.step)
        await asyncio.to_thread(bench.directory.remove_outdated_checkpoints, restored.step)  # the end may have come just before
    unreported = await asyncio.to_thread(_killed_since, rollout.journal.path, history.first_unreported_incarnation)
    _report(bench, rollout.journal.incarnation, restored, backlog, unreported)
    return backlog


def report_restart(bench: Bench, rollout: RolloutSide) -> None:
    """A stage without checkpoints is begun again from the cold start."""
    bench.view.note(f"stage {bench.recipe.stage.method!r} has no checkpoints: it is begun again from the end of the cold start")
    _report(bench, rollout.journal.incarnation, _Restored(0, None), Backlog(), KilledCalls())


def _report(bench: Bench, incarnation: int, restored: _Restored, backlog: Backlog, killed: KilledCalls) -> None:
    num_redelivered = sum(len(redelivery.groups) for redelivery in backlog.redeliveries)
    bench.report(
        "resume",
        incarnation=incarnation,
        restored_step=restored.step,
        checkpoint=restored.folder.name if restored.folder else None,
        num_redelivered_groups=num_redelivered,
        num_rerun_attempts=backlog.num_missing_attempts,
        num_killed_completions=killed.num_completions,
        killed_tokens=killed.num_tokens,
    )
    bench.view.note(
        f"resumed as incarnation {incarnation} from {restored.folder.name if restored.folder else 'the cold start'}: "
        f"{num_redelivered} groups are trained again, {len(backlog.finished)} finished ones wait, "
        f"{backlog.num_missing_attempts} attempts are run again; {killed.num_completions} completions "
        f"({killed.num_tokens} tokens) were killed"
    )


async def _restore_trainer(bench: Bench, journal: Path) -> _Restored:
    for name, step in await asyncio.to_thread(_recorded_checkpoints, journal):
        folder = bench.directory.checkpoint(name)
        try:
            found = await bench.trainer.restore(folder)
            if found != step:
                raise TrainerError(f"{folder} is of step {found}, on record as of step {step}")
            return _Restored(step, folder)
        except TrainerError as error:
            bench.view.note(f"WARNING: checkpoint {name} is unusable, the one before it is tried: {error}")
    return _Restored(0, None)


def _recorded_checkpoints(journal: Path) -> list[tuple[str, int]]:
    """(folder name, step) of the newest two, newest first; older ones were removed."""
    with JournalReader.open(journal) as record:
        newest_first = {path.name: version.step for version, path in reversed(record.checkpoints())}
    return list(newest_first.items())[:2]


def _read_backlog(journal: Path, step: int, config: PoolConfig) -> Backlog:
    with JournalReader.open(journal) as record:
        return read_backlog(record, step=step, config=config)


def _killed_since(journal: Path, incarnation: int) -> KilledCalls:
    with JournalReader.open(journal) as record:
        return sum((killed for number, killed in record.killed().items() if number >= incarnation), KilledCalls())
