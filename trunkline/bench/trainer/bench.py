"""`trunkline bench trainer`: one RL step of CISPO here and in TRL's GRPOTrainer. Owns the order of processes and the rows.

Both train the same random model on the same prompts, completions, rewards and log-probabilities, in processes of their own that
run one after the other, by turns. Timed is the training part alone, in CPU-seconds: forward, loss, backward, AdamW; ours with
merging the samples.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from trunkline.bench.result import Demand, Result, Row
from trunkline.bench.trainer.material import SHAPES, Shape, environment, save_model
from trunkline.errors import ConfigError

_GRADIENT_TOLERANCE = 1e-5
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TrainerBenchPlan:
    """How often."""

    num_turns: int = 3
    """Processes of each trainer."""
    num_steps: int = 5
    """Timed steps of a process, after one that is not."""


@dataclass
class _Side:
    """What the processes of one trainer measured."""

    seconds: list[float] = field(default_factory=list)
    peak_rss: list[int] = field(default_factory=list)
    num_tokens: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def bench_trainer(plan: TrainerBenchPlan, folder: Path, progress: Progress) -> Result:
    """Runs it; `folder` is scratch. Raises ConfigError without TRL, or if a process fails, with the end of what it said."""
    if importlib.util.find_spec("trl") is None:
        raise ConfigError("bench trainer compares with TRL, which is not installed; pip install 'trunkline[bench]'")
    save_model(folder / "model")
    rows: list[Row] = []
    samples: dict[str, list[float]] = {}
    for shape in SHAPES:
        sides, swept = _measure(shape, plan, folder, progress)
        rows += _rows(shape, sides, swept, folder)
        samples |= {f"{name}, {shape.name}": side.seconds for name, side in sides.items()}
    return Result(f"One RL step: this trainer and TRL {version('trl')} (CISPO, CPU, fp32, one thread)", tuple(rows), samples, "s")


def _measure(shape: Shape, plan: TrainerBenchPlan, folder: Path, progress: Progress) -> tuple[dict[str, _Side], dict[int, float]]:
    total, done = len(shape.micro_batches) + 2 * plan.num_turns, 0
    swept: dict[int, float] = {}
    for micro_batch in shape.micro_batches:
        progress(shape.name, done, total)
        swept[micro_batch] = min(_run("peer", shape, folder, 2, str(micro_batch))["seconds"])
        done += 1
    fastest = min(swept, key=swept.__getitem__)
    sides = {"TRL": _Side(), "trunkline": _Side()}
    for _ in range(plan.num_turns):
        for name, module, extra in (("TRL", "peer", (str(fastest),)), ("trunkline", "ours", ())):
            progress(shape.name, done, total)
            found = _run(module, shape, folder, plan.num_steps, *extra)
            sides[name].seconds += found["seconds"]
            sides[name].peak_rss.append(found["peak_rss"])
            sides[name].num_tokens = found["tokens"]
            done += 1
    progress(shape.name, total, total)
    return sides, swept


def _run(module: str, shape: Shape, folder: Path, num_steps: int, *extra: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"trunkline.bench.trainer.{module}", shape.name, str(folder / "model"), str(num_steps)]
    done = subprocess.run([*command, str(folder / f"{module}.pt"), *extra], env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"{' '.join(command[2:4])} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _rows(shape: Shape, sides: dict[str, _Side], swept: dict[int, float], folder: Path) -> list[Row]:
    peer, ours = sides["TRL"], sides["trunkline"]
    rows = [Row(shape.name, f"TRL in micro-batches of {size}", seconds, "CPU-s a step") for size, seconds in swept.items()]
    for name, side in sides.items():
        rows.append(Row(shape.name, f"{name}: training part, median", side.median, "CPU-s a step"))
        rows.append(Row(shape.name, f"{name}: tokens forwarded", side.num_tokens, "a step"))
        rows.append(Row(shape.name, f"{name}: peak resident memory", max(side.peak_rss) / 1e6, "MB"))
    ratio = peer.median / ours.median
    rows.append(Row(shape.name, "CPU-seconds, TRL over ours", ratio, "x", Demand(">=", shape.least_ratio)))
    distance = _gradient_distance(folder / "peer.pt", folder / "ours.pt")
    rows.append(Row(shape.name, "distance of the gradients", distance, "of the norm", Demand("<=", _GRADIENT_TOLERANCE)))
    return rows


def _gradient_distance(theirs_path: Path, ours_path: Path) -> float:
    theirs, ours = torch.load(theirs_path), torch.load(ours_path)
    assert theirs.keys() == ours.keys()
    flat = [torch.cat([side[name].flatten().double() for name in sorted(ours)]) for side in (theirs, ours)]
    return ((flat[0] - flat[1]).norm() / flat[0].norm()).item()
