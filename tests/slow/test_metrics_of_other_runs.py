"""Rows that only a control arm or a resumed run writes: documented too, and shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.seen_runs import COLD_START, documented, resume, show, train
from tests.unit.tensorboard_files import read_events, scalars_of
from trunkline.metrics.jsonl import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def keys_written(run_dir: Path, kind: str) -> set[str]:
    return {key for row in read_metrics(run_dir / "metrics.jsonl") if row["kind"] == kind for key in row}


def keys_documented(kind: str) -> set[str]:
    return {key for found, key in documented() if found == kind}


def test_rounds_of_rejection_sampling_are_documented_and_drawn(tmp_path: Path) -> None:
    method = ["stage.method=rejection_sampling", "stage.steps=2", "stage.optimizer.lr_end_fraction=1.0"]
    run_dir = train(tmp_path / "run", *COLD_START, *method)
    assert keys_written(run_dir, "round") == keys_documented("round")
    assert "1.00 ┤" in show(run_dir)


def test_a_resumed_run_is_documented_and_goes_on_in_show_and_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    writers = 'metrics.writers=["tensorboard"]'
    run_dir = train(tmp_path / "run", *COLD_START, writers, "stage.steps=2")
    resume(run_dir, "stage.steps=4")
    assert keys_written(run_dir, "resume") == keys_documented("resume")
    text = show(run_dir)
    assert "resumed 1×" in text and "best episode of step 4" in text
    files = sorted(run_dir.glob("events.out.tfevents.*"))
    assert len(files) == 2
    steps = [set(scalars_of(read_events(path))["rl/reward"]) for path in files]
    assert sorted(map(sorted, steps)) == [[1, 2], [3, 4]]
