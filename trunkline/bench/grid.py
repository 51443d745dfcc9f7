"""A grid of trainings: arms by seeds, each a subprocess of the command line, taken up again where it stopped. Owns the order and the table.

A grid is a TOML file beside the recipes:

    seeds = [1, 2, 3]

    [[arms]]
    name = "rl"
    recipe = "smollm2.toml"

    [[arms]]
    name = "shuffled"
    recipe = "smollm2-shuffled.toml"
    start = "rl"                  # model.path = the cold start of this seed's arm "rl"
    overrides = ["stage.steps=16"]

OUT/ARM-seedSEED is an arm's run directory. One with a summary.json is done, one without is resumed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trunkline.errors import ConfigError, InfraError

START_CHECKPOINT = Path("checkpoints/cold-start")
Say = Callable[[str], None]


class Arm(BaseModel):
    """One way to spend the compute."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="Of the run directories.")
    recipe: Path = Field(description="Beside the grid's file, or a path.")
    start: str | None = Field(None, description="The arm whose cold start this one begins with.")
    overrides: tuple[str, ...] = Field((), description="key.path=value, as on the command line.")


class Grid(BaseModel):
    """Arms by seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: tuple[int, ...] = Field(min_length=1, description="Each arm runs once under each.")
    arms: tuple[Arm, ...] = Field(min_length=1, description="In the order of the table; one that others start from comes before them.")

    @model_validator(mode="after")
    def _arms_are_in_order(self) -> Self:
        known: set[str] = set()
        for arm in self.arms:
            if arm.name in known:
                raise ValueError(f"two arms are called {arm.name!r}")
            if arm.start is not None and arm.start not in known:
                raise ValueError(f"arm {arm.name!r} starts from {arm.start!r}, which is no arm above it")
            known.add(arm.name)
        return self

    @classmethod
    def load(cls, path: Path) -> Grid:
        """Reads a grid; relative recipes are beside it. Raises ConfigError."""
        try:
            grid = cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(f"cannot read the grid {path}: {error.strerror}; grids live in recipes/grids/") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
            raise ConfigError(f"{path} is no grid: {error}") from None
        arms = tuple(arm.model_copy(update={"recipe": path.parent / arm.recipe}) for arm in grid.arms)
        if missing := [str(arm.recipe) for arm in arms if not arm.recipe.exists()]:
            raise ConfigError(f"{path} names recipes that do not exist: {', '.join(missing)}")
        return grid.model_copy(update={"arms": arms})


@dataclass(frozen=True)
class GridRun:
    """One arm under one seed."""

    arm: Arm
    """What is run."""
    seed: int
    """Under which seed."""
    folder: Path
    """Its run directory."""

    @property
    def summary(self) -> dict[str, Any] | None:
        """summary.json of a finished run; None before."""
        try:
            summary: dict[str, Any] = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return summary

    def arguments(self, out: Path) -> list[str]:
        """Of `trunkline train`: anew, or from where it stopped."""
        if (self.folder / "recipe.toml").exists():
            return [f"resume={self.folder}"]
        start = [f"model.path={folder_of(out, self.arm.start, self.seed) / START_CHECKPOINT}"] if self.arm.start else []
        return [str(self.arm.recipe), f"seed={self.seed}", f"run_dir={self.folder}", *start, *self.arm.overrides]


def folder_of(out: Path, arm: str, seed: int) -> Path:
    """Run directory of an arm under a seed."""
    return out / f"{arm}-seed{seed}"


def runs_of(grid: Grid, out: Path) -> list[GridRun]:
    """All runs, seed after seed, so that whole rows of the table come early."""
    return [GridRun(arm, seed, folder_of(out, arm.name, seed)) for seed in grid.seeds for arm in grid.arms]


async def run_grid(grid: Grid, out: Path, *, jobs: int, say: Say) -> None:
    """Runs what is not done yet, `jobs` at a time; an arm waits for the cold start it begins with.

    Raises InfraError at the end if runs failed; the others were run all the same.
    """
    waiting = [run for run in runs_of(grid, out) if run.summary is None]
    say(f"{len(runs_of(grid, out)) - len(waiting)} runs are done, {len(waiting)} to go, {jobs} at a time")
    running: dict[asyncio.Task[int], GridRun] = {}
    failed: list[GridRun] = []
    while waiting or running:
        while len(running) < jobs and (ready := _first_ready(waiting, out)) is not None:
            waiting.remove(ready)
            say(f"starts: {ready.folder.name}")
            running[asyncio.create_task(_train(ready, out))] = ready
        if not running:
            break
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            run = running.pop(task)
            say(f"{'done' if task.result() == 0 else 'FAILED'}: {run.folder.name}")
            failed += [run] if task.result() else []
    if failed or waiting:
        logs = ", ".join(str(log_of(run)) for run in failed)
        held = f"; {len(waiting)} runs had no cold start to begin with" if waiting else ""
        raise InfraError(f"{len(failed)} runs failed (see {logs}){held}; the same command takes the grid up again")


def log_of(run: GridRun) -> Path:
    """Where a run's output goes."""
    return run.folder.with_name(f"{run.folder.name}.log")


def _append_to(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")


def _first_ready(waiting: Sequence[GridRun], out: Path) -> GridRun | None:
    def has_its_start(run: GridRun) -> bool:
        return run.arm.start is None or (folder_of(out, run.arm.start, run.seed) / "summary.json").exists()

    return next(filter(has_its_start, waiting), None)


async def _train(run: GridRun, out: Path) -> int:
    with _append_to(log_of(run)) as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "trunkline.run.cli",
            "train",
            *run.arguments(out),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            return await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            await process.wait()
            raise
