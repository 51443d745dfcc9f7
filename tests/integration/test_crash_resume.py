"""One run that dies three times, once by each of its processes, and resumes: nothing is lost, trained twice or renamed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests import in_process
from tests.crash import NUM_STEPS, Saga, check_record, random_deaths, rows_of, run_saga
from trunkline.errors import ConfigError

pytestmark = pytest.mark.timeout(900)  # the first test waits for the run of all

SEED = 4  # the conductor, the engine, the trainer, each after some steps of RL since the checkpoint before


@pytest.fixture(scope="module")
def saga(healthy_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Saga:
    beginning = ("cold_start.steps=0", f"model.path={healthy_run / 'checkpoints' / 'cold-start'}")
    return run_saga(tmp_path_factory.mktemp("crash") / "run", random_deaths(SEED), beginning)


def test_a_run_that_loses_each_of_its_processes_ends_with_the_record_of_one_that_did_not(saga: Saga) -> None:
    assert saga.num_kills == 3, saga.outputs
    check_record(saga.run_dir)


def test_a_part_that_dies_is_named_and_a_dead_conductor_leaves_no_trace_to_trip_over(saga: Saga) -> None:
    conductor, engine, trainer, last = saga.outputs
    assert "error" not in conductor + last
    assert "the engine process ended with status -9" in engine and "the trainer process ended with status -9" in trainer
    assert saga.statuses == [-9, 1, 1, 0]
    assert not saga.left_behind, "no part outlives another"


def test_a_finished_run_is_told_so_and_left_as_it_is(saga: Saga) -> None:
    before = (saga.run_dir / "metrics.jsonl").read_bytes()
    told = in_process.trunkline("train", f"resume={saga.run_dir}")
    assert "is finished" in told.stderr and "held-out success" in told.stdout
    assert (saga.run_dir / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_goes_on_for_more_steps_from_the_checkpoint_before_a_damaged_one(saga: Saga, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(saga.run_dir, run_dir)
    damaged = run_dir / "checkpoints" / f"step-{NUM_STEPS:06d}" / "optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    stderr = in_process.trunkline("train", f"resume={run_dir}", f"stage.steps={NUM_STEPS + 1}").stderr
    assert "WARNING: checkpoint step-000012 is unusable" in stderr and "optimizer.safetensors" not in stderr.split("WARNING")[0]
    rows = rows_of(run_dir)
    (resume,) = [row for row in rows if row["kind"] == "resume"][-1:]
    assert (resume["restored_step"], resume["num_redelivered_groups"]) == (9, 6)
    first, again = ({row["step"]: row["loss"] for row in some if row["kind"] == "rl"} for some in (rows[: rows.index(resume)], rows))
    assert {step: again[step] for step in first} == first, "the same groups from the same weights: the same losses"
    assert sorted(again) == list(range(1, NUM_STEPS + 2))
    assert [row["step"] for row in rows if row["kind"] == "evaluation"] == [0, NUM_STEPS, NUM_STEPS + 1]


def test_a_journal_that_is_cut_is_refused_before_anything_is_written(saga: Saga, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(saga.run_dir, run_dir)
    (run_dir / "summary.json").unlink()
    journal = run_dir / "journal.sqlite"
    journal.write_bytes(journal.read_bytes()[:-5000])
    before = _contents(run_dir)
    with pytest.raises(ConfigError, match=re.escape(str(journal))):
        in_process.trunkline("train", f"resume={run_dir}")
    assert _contents(run_dir) == before


def _contents(run_dir: Path) -> dict[Path, bytes]:
    """Of all files but those that sqlite keeps beside the journal for its readers."""
    return {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal"))}


def test_another_recipe_is_refused_with_the_knob(saga: Saga) -> None:
    with pytest.raises(ConfigError, match=re.escape("stage.optimizer.lr (was 0.0006, now 0.001)")):
        in_process.trunkline("train", f"resume={saga.run_dir}", "stage.optimizer.lr=1e-3")
