"""A sparse policy of MiniMax-M2's shape through the whole loop, shortened: routes recorded by the engine, replayed by the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.in_process import trunkline
from trunkline.metrics.jsonl import read_metrics

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
# Of a policy that knows nothing yet, attempts differ in what they get wrong: that is enough of a gradient.
SHORT = [
    'taskset.options={kinds={"one_hop.area"=1},invented_share=0.0}',
    "taskset.harder_splits=[]",
    "model.scratch.num_experts=8",
    "rewards.process=0.1",
    "pool.group_size=8",
    "pool.window.groups_per_step=1",
    "pool.window.max_off_policy_steps=0",
    "evaluation.episodes=2",
    "evaluation.before=false",
    "evaluation.greedy=false",
]


def steps_of(path: Path, *overrides: str) -> list[dict[str, Any]]:
    """The RL rows of a run."""
    trunkline("train", str(ROOT / "recipes" / "m2-tiny.toml"), f"run_dir={path}", *SHORT, *overrides)
    return [row for row in read_metrics(path / "metrics.jsonl") if row["kind"] == "rl"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sparse") / "run"


@pytest.fixture(scope="module")
def steps(run_dir: Path) -> list[dict[str, Any]]:
    return steps_of(run_dir, "cold_start.steps=40", "stage.steps=2")


def test_sampled_tokens_are_trained_on_the_experts_that_they_were_sampled_with(steps: list[dict[str, Any]]) -> None:
    assert len(steps) == 2
    for row in steps:
        assert 0 < row["replayed_tokens"] < row["forest_tokens"], "prompts have no record"
        assert row["sampler_trainer_gap"] <= 5e-5
        assert row["route_mismatch"] <= 0.01, "in fp32 two experts are rarely so close that engine and trainer choose differently"
        assert row["expert_mismatch"] <= row["route_mismatch"] and row["route_split_tokens"] == 0


def test_the_load_of_the_experts_is_told(steps: list[dict[str, Any]], run_dir: Path) -> None:
    rows = [row for row in read_metrics(run_dir / "metrics.jsonl") if row["kind"] == "supervised"] + steps
    assert all(0 < row["load_violation"] <= row["load_violation_worst"] for row in rows)


@pytest.mark.parametrize("replay", ["all", pytest.param("off", marks=pytest.mark.slow)])
def test_another_replay_goes_on_from_the_same_policy(replay: str, steps: list[dict[str, Any]], run_dir: Path, tmp_path: Path) -> None:
    start = f"model.path={run_dir / 'checkpoints' / 'cold-start'}"
    (row,) = steps_of(tmp_path / "run", start, "cold_start.steps=0", "stage.steps=1", f"trainer.replay={replay}")
    without_record = row["forest_tokens"] - row["replayed_tokens"]
    if replay == "off":
        assert row["replayed_tokens"] == row["route_mismatch"] == 0
    else:
        assert without_record <= row["num_samples"], "only the last token of a trajectory went through no forward pass"
    assert row["sampler_trainer_gap"] <= 5e-5
