"""Kills the parts of a short training at chosen points, resumes it, and checks its record. Owns no test: two tiers share it.

A saga is one run with several deaths: killed, resumed, killed, resumed, ... and left to end. What is checked afterwards is read
from the journal's tables and metrics.jsonl, not through the code that resumes.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from trunkline.metrics.jsonl import read_metrics
from trunkline.models.checkpoint import load_decoder
from trunkline.pool.journal_reader import JournalReader
from trunkline.run.recipe import Recipe, load_recipe
from trunkline.trainer.batch import SampleBatch
from trunkline.trainer.config import PhaseConfig
from trunkline.trainer.samples import samples_from_groups
from trunkline.trainer.step import Learner

ROOT = Path(__file__).parents[1]
NUM_STEPS = 12
BEFORE_RL = -1
PATIENCE_S = 240.0

# A policy that succeeds now and then, so that most groups have a gradient.
COLD_START = ("cold_start.steps=300", "cold_start.decision_noise=0")
SHORT = [
    'taskset.options={kinds={"one_hop.area"=1},invented_share=0.0}',
    "taskset.harder_splits=[]",
    f"stage.steps={NUM_STEPS}",
    "stage.checkpoint_every=3",
    "evaluation.episodes=16",
    "evaluation.greedy=false",
    "pool.group_size=4",
    "pool.window.groups_per_step=2",
]


@dataclass(frozen=True)
class Death:
    """When a part is killed."""

    part: str
    """conductor, engine or trainer."""
    step: int
    """After this RL step's row; 0: after the start evaluation or the resume; BEFORE_RL: after the part's start."""
    delay_s: float
    """Seconds later, but before the run has gone on to what comes next: on a fast machine it would have ended."""


def random_deaths(seed: int) -> list[Death]:
    """One for each part, in random order, at random points that do not go back."""
    rng = random.Random(seed)
    parts = rng.sample(["conductor", "engine", "trainer"], 3)
    steps = sorted(rng.randint(BEFORE_RL, NUM_STEPS) for _ in parts)
    return [Death(part, step, rng.uniform(0, 8.0 if step == BEFORE_RL else 0.5)) for part, step in zip(parts, steps, strict=True)]


@contextlib.contextmanager
def trunkline(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command line, killed at the end of the block if it is still there."""
    command = [sys.executable, "-m", "trunkline.run.cli", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    """metrics.jsonl as far as it is written."""
    path = run_dir / "metrics.jsonl"
    return read_metrics(path) if path.exists() else []


@dataclass
class Saga:
    """One run, from its first start to its end."""

    run_dir: Path
    """Where it is."""
    beginning: Sequence[str] = COLD_START
    """Overrides that say which policy it starts from."""
    outputs: list[str] = field(default_factory=list)
    """What each start wrote to stderr."""
    statuses: list[int] = field(default_factory=list)
    """How each start ended."""
    left_behind: list[psutil.Process] = field(default_factory=list)
    """Engines and trainers that outlived the death of a part."""
    num_kills: int = 0
    """Deaths that came in time: a part may have ended before."""

    def start(self, death: Death | None = None, *overrides: str) -> int:
        """Starts or resumes the run and kills a part of it; returns the exit status."""
        is_new = not (self.run_dir / "recipe.toml").exists()
        how = ["recipes/quickstart.toml", f"run_dir={self.run_dir}", *SHORT, *self.beginning] if is_new else [f"resume={self.run_dir}"]
        num_rows = len(rows_of(self.run_dir))
        with trunkline("train", *how, *overrides) as process:
            if death is not None:
                self._kill(process, death, num_rows)
            _, stderr = process.communicate(timeout=PATIENCE_S)
            self.outputs.append(stderr)
            self.statuses.append(process.returncode)
            return process.returncode

    def _kill(self, process: subprocess.Popen[str], death: Death, num_rows: int) -> None:
        def has_come() -> bool:
            new = rows_of(self.run_dir)[num_rows:]
            if death.step == BEFORE_RL:
                return (self.run_dir / "run.lock").exists() and _find_part(process, death.part) is not None
            if death.step == 0:
                return any(row["kind"] in ("evaluation", "resume") for row in new)
            # A death that came late can leave a checkpoint behind the point: then the resume is the moment.
            key = {"rl": "step", "resume": "restored_step"}
            return any(row["kind"] in key and row[key[row["kind"]]] >= death.step for row in new)

        def has_gone_on() -> bool:
            new = rows_of(self.run_dir)[num_rows:]
            if death.step == BEFORE_RL:
                return any(row["kind"] in ("evaluation", "resume", "rl") for row in new)
            return any(row["kind"] == "rl" and row["step"] > death.step for row in new)

        if wait_for(has_come, process):
            # After the last step only the end evaluation is left, which is short.
            ends_at = time.monotonic() + death.delay_s * (0.1 if death.step == NUM_STEPS else 1.0)
            while time.monotonic() < ends_at and not has_gone_on():
                time.sleep(0.01)
            part = _find_part(process, death.part)
            if part is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    parts = [found for name in ("engine", "trainer") if (found := _find_part(process, name)) is not None]
                    part.kill()
                    self.num_kills += 1
                    self.left_behind += psutil.wait_procs(parts, timeout=PATIENCE_S / 4)[1]


def wait_for(has_come: Callable[[], bool], process: subprocess.Popen[str]) -> bool:
    """False if the process ended before."""
    deadline = time.monotonic() + PATIENCE_S
    while not has_come():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "the run did not get there"
        time.sleep(0.01)
    return True


def _find_part(process: subprocess.Popen[str], part: str) -> psutil.Process | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        conductor = psutil.Process(process.pid)
        if part == "conductor":
            return conductor
        for child in conductor.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if f"trunkline.{part}.server" in child.cmdline():
                    return child
    return None


def run_saga(run_dir: Path, deaths: Sequence[Death], beginning: Sequence[str] = COLD_START) -> Saga:
    """Lives through all deaths and to the end."""
    saga = Saga(run_dir, beginning)
    for death in deaths:
        saga.start(death)
        assert "Traceback" not in saga.outputs[-1], saga.outputs[-1]
    assert saga.start() == 0, saga.outputs[-1]
    return saga


# --- checks -----------------------------------------------------------------------------------------------------------


def check_record(run_dir: Path) -> None:
    """All that a resumed run promises."""
    connection = sqlite3.connect(f"file:{run_dir / 'journal.sqlite'}?mode=ro", uri=True)
    try:
        rows = rows_of(run_dir)
        resumes = {row["incarnation"]: row for row in rows if row["kind"] == "resume"}
        history = _history(connection, {number: row["restored_step"] for number, row in resumes.items()})
        assert sorted(history) == list(range(1, NUM_STEPS + 1))
        assert all(len(groups) == 2 for groups in history.values())
        _check_episodes(connection)
        _check_killed(connection, resumes)
        _check_versions(connection)
    finally:
        connection.close()
    _check_losses(run_dir, rows, history)
    _check_summary(run_dir, rows, len(resumes))


def _history(connection: sqlite3.Connection, restored: dict[int, int]) -> dict[int, list[str]]:
    """Step -> groups that the final weights were trained on. Asserts that none was trained twice relative to its checkpoint."""
    history: dict[int, list[str]] = {}
    query = "SELECT incarnation, group_id, policy_step FROM consumed WHERE reason = 'trained' ORDER BY rowid"
    for incarnation, group_id, step in connection.execute(query).fetchall():
        if incarnation in restored:
            kept = restored.pop(incarnation)
            history = {number: groups for number, groups in history.items() if number <= kept}
        assert group_id not in [one for groups in history.values() for one in groups], f"{group_id} is trained twice"
        history.setdefault(step, []).append(group_id)
    return history


def _check_episodes(connection: sqlite3.Connection) -> None:
    """An attempt that reached a verdict is never run again: its record would be a second one."""
    query = "SELECT group_id, attempt FROM episodes WHERE status != 'failed' AND group_id IN (SELECT group_id FROM groups)"
    assert set(Counter(connection.execute(query).fetchall()).values()) == {1}, "a finished episode was lost"


def _check_killed(connection: sqlite3.Connection, resumes: dict[int, dict[str, Any]]) -> None:
    ended = set(connection.execute("SELECT incarnation, episode_id FROM episodes").fetchall())
    last = max(resumes, default=1)
    calls = connection.execute("SELECT incarnation, episode_id, token_ids FROM calls WHERE episode_id LIKE 'g%'").fetchall()
    killed = [token_ids for incarnation, episode_id, token_ids in calls if (incarnation, episode_id) not in ended and incarnation < last]
    assert sum(row["num_killed_completions"] for row in resumes.values()) == len(killed)
    assert sum(row["killed_tokens"] for row in resumes.values()) == sum(len(token_ids) // 4 for token_ids in killed)


def _check_versions(connection: sqlite3.Connection) -> None:
    versions = [version for (version,) in connection.execute("SELECT version FROM published ORDER BY rowid")]
    assert len(set(versions)) == len(versions), "a policy version was used twice"
    incarnations = [int(version.partition(".")[0]) for version in versions]
    assert incarnations == sorted(incarnations)


def _check_losses(run_dir: Path, rows: Sequence[dict[str, Any]], history: dict[int, list[str]]) -> None:
    """An uninterrupted training on the journal's samples gives the losses of every incarnation."""
    losses = replay(load_recipe(run_dir / "recipe.toml"), run_dir, history)
    steps = [row for row in rows if row["kind"] == "rl"]
    assert {row["step"] for row in steps} == set(range(1, NUM_STEPS + 1))
    for row in steps:
        assert abs(row["loss"] - losses[row["step"]]) <= 1e-6, row["step"]
        assert row["age_max"] <= 1, "S + ceil((W-1)/P) with S=1, P=2, W=1: the bound holds across a resume"


def replay(recipe: Recipe, run_dir: Path, history: dict[int, list[str]]) -> dict[int, float]:
    """Losses by step of one learner that never dies."""
    stage = recipe.stage
    learner = Learner(load_decoder(run_dir / "checkpoints" / "cold-start"))
    learner.begin_phase(PhaseConfig(kind="rl", optimizer=stage.optimizer.for_steps(stage.steps), loss=stage.loss))
    losses = {}
    with JournalReader.open(run_dir / "journal.sqlite") as record:
        for step in sorted(history):
            samples = samples_from_groups([record.read_group(group_id) for group_id in history[step]], baseline=stage.baseline)
            losses[step] = learner.train_step(SampleBatch.from_samples(samples)).loss
    return losses


def _check_summary(run_dir: Path, rows: Sequence[dict[str, Any]], num_resumes: int) -> None:
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["rl_steps"] == NUM_STEPS
    assert summary["num_resumes"] == num_resumes
    (end,) = [row for row in rows if row["kind"] == "rl_end"][-1:]
    assert end["num_trained_groups"] == 2 * NUM_STEPS
    spent = [row["cpu_seconds"] for row in rows if "cpu_seconds" in row]
    assert all(later >= earlier - 0.05 for earlier, later in itertools.pairwise(spent)), "costs add up over incarnations"
    assert summary["cpu_seconds"] >= spent[-1] - 0.1
    assert not list(run_dir.glob("*/.*.tmp"))
    assert {path.name for path in (run_dir / "checkpoints").glob("step-*")} == {"step-000009", "step-000012"}
