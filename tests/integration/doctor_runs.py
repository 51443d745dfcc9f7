"""Short real runs for the doctor: one kind of question over real names, a small cold start. Owns their recipe and their end."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from trunkline.pool.journal_reader import JournalReader

ROOT = Path(__file__).parents[2]
PATIENCE_S = 240.0
SMALL = [
    'taskset.options={kinds={"one_hop.area"=1},invented_share=0.0}',
    "taskset.harder_splits=[]",
    "evaluation.episodes=2",
    "evaluation.greedy=false",
    "pool.group_size=8",
    "pool.window.groups_per_step=4",
    "stage.steps=2",
]
ENOUGH_GROUPS = 32
"""So many in a row without gradient: a policy that succeeds now and then does not do that."""


def train_with_cold_start(run_dir: Path) -> None:
    """A healthy run to its end; its policy before RL, which earns about 0.8, is in checkpoints/cold-start."""
    cold_start = ["cold_start.steps=400", "cold_start.batch_size=6", "cold_start.decision_noise=0.0"]
    done = _command(run_dir, "trunkline.run.cli", [], [*SMALL, *cold_start, "stage.steps=3"])
    assert done.wait(PATIENCE_S) == 0, _output(run_dir).read_text()


def train_planted(run_dir: Path, *overrides: str, policy: Path | None, fault: str | None = None, enough: int = ENOUGH_GROUPS) -> None:
    """A run with a fault, to its end, or killed once many groups in a row had no gradient: with many faults no further step comes.

    Args:
        overrides: faults that a recipe can have.
        policy: where it starts; None is a policy that was taught nothing.
        fault: a fault of tests/integration/planted_faults.py.
        enough: how many groups in a row.
    """
    start = ["cold_start.steps=0"] + ([f"model.path={policy}"] if policy else [])
    module, prefix = ("tests.integration.planted_faults", [fault]) if fault else ("trunkline.run.cli", [])
    process = _command(run_dir, module, prefix, [*SMALL, *start, *overrides])
    deadline = time.monotonic() + PATIENCE_S
    try:
        while process.poll() is None and not _is_stuck(run_dir / "journal.sqlite", enough):
            assert time.monotonic() < deadline, _output(run_dir).read_text()
            time.sleep(0.2)
    finally:
        process.kill()
        process.wait()


def _command(run_dir: Path, module: str, prefix: list[str], overrides: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", module, *prefix, "train", "recipes/quickstart.toml", f"run_dir={run_dir}", *overrides]
    with _output(run_dir).open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)


def _output(run_dir: Path) -> Path:
    """What the command printed, for a look at a test that failed."""
    return run_dir.with_suffix(".txt")


def _is_stuck(journal: Path, enough: int) -> bool:
    if not journal.exists():
        return False
    with JournalReader.open(journal) as record:
        newest = [reason for *_, reason in record.consumed()[-enough:]]
    return newest == ["degenerate"] * enough
