"""The real model through the whole loop, as its recipe says but shorter: cold start, RL, evaluation, resume."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "smollm2.toml"
SHORT = ["cold_start.steps=6", "stage.steps=1", "stage.checkpoint_every=1", "evaluation.episodes=8", "evaluation.greedy=false"]
SMALL = [
    "taskset.options.kinds={'one_hop.area'=1}",
    "pool.group_size=4",
    "pool.window.groups_per_step=1",
    "agent.max_tokens=12",
    "agent.max_turns=2",
]


def _trunkline(*arguments: str) -> str:
    run = subprocess.run([sys.executable, "-m", "trunkline.run.cli", *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_smollm2_is_trained_saved_resumed_and_measured(tmp_path: Path, smollm2: Path) -> None:
    run_dir = tmp_path / "run"
    _trunkline("train", str(RECIPE), f"model.path={smollm2}", f"run_dir={run_dir}", *SHORT, *SMALL)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["rl_steps"] == 1 and summary["peak_rss_bytes"] < 6e9
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    (step,) = [row for row in rows if row["kind"] == "rl"]
    assert step["sampler_trainer_gap"] < 5e-4, "engine and trainer agree on real weights, up to fp32"
    _trunkline("train", f"resume={run_dir}", "stage.steps=2")
    assert json.loads((run_dir / "summary.json").read_text())["rl_steps"] == 2
    out = _trunkline(
        "rollout", str(RECIPE), "--model", str(run_dir / "checkpoints" / "final"), "--episodes", "4", "--out", str(tmp_path / "out"), *SMALL
    )
    assert "success" in out
