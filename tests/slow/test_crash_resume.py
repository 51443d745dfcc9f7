"""Thirty deaths of short runs: each of the three processes ten times, at random points from the start to after the last step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.crash import COLD_START, SHORT, check_record, random_deaths, rows_of, run_saga, trunkline, wait_for


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [seed for seed in range(11) if seed != 4])  # 4 is the one that CI runs
def test_nothing_is_lost_or_trained_twice_wherever_a_process_dies(tmp_path: Path, seed: int) -> None:
    saga = run_saga(tmp_path / "run", random_deaths(seed))
    assert saga.num_kills == 3, saga.outputs
    check_record(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("method", "kind", "num_rows"), [("supervision", "supervised", 21), ("rejection_sampling", "round", 2)])
def test_a_stage_without_checkpoints_is_begun_again_from_the_cold_start(tmp_path: Path, method: str, kind: str, num_rows: int) -> None:
    """The cold start has 19 rows of supervised steps; the death comes after some of the stage."""

    def train(run_dir: Path, *, is_killed: bool) -> None:
        steps = 48 if method == "supervision" else 4
        arguments = ["recipes/quickstart.toml", f"run_dir={run_dir}", *SHORT, *COLD_START, f"stage.method={method}", f"stage.steps={steps}"]
        with trunkline("train", *arguments, "stage.optimizer.lr_end_fraction=1") as process:
            if is_killed:
                assert wait_for(lambda: sum(row["kind"] == kind for row in rows_of(run_dir)) >= num_rows, process)
                process.kill()
            _, stderr = process.communicate(timeout=600)
            assert is_killed or process.returncode == 0, stderr

    train(tmp_path / "killed", is_killed=True)
    with trunkline("train", f"resume={tmp_path / 'killed'}") as process:
        _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    assert f"stage '{method}' has no checkpoints: it is begun again from the end of the cold start" in stderr
    rows = rows_of(tmp_path / "killed")
    assert sum(row["kind"] == "evaluation" and row["name"] == "start" for row in rows) == 1, "a finished evaluation is not paid twice"
    assert json.loads((tmp_path / "killed" / "summary.json").read_text())["num_resumes"] == 1
    if method == "supervision":
        train(tmp_path / "whole", is_killed=False)
        weights = [(tmp_path / name / "checkpoints" / "final" / "model.safetensors").read_bytes() for name in ("killed", "whole")]
        assert weights[0] == weights[1], "it goes on behind the demonstrations of the cold start"
