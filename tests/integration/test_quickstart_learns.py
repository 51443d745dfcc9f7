"""The quickstart, shortened to one kind of question: the whole loop, in its real processes, makes the policy better."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.in_process import trunkline
from trunkline.metrics.jsonl import read_metrics
from trunkline.models.tokenizer import Tokenizer
from trunkline.pool.journal_reader import JournalReader

pytestmark = pytest.mark.timeout(900)  # the first test waits for the run of all

ROOT = Path(__file__).parents[2]
NUM_STEPS = 18
SHORT = [
    'taskset.options={kinds={"one_hop.area"=1}}',
    "taskset.harder_splits=[]",
    "cold_start.steps=1600",
    f"stage.steps={NUM_STEPS}",
    "stage.checkpoint_every=6",
    "evaluation.episodes=160",
    "evaluation.greedy=false",
]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("learning") / "run"
    trunkline("train", str(ROOT / "recipes" / "quickstart.toml"), f"run_dir={path}", *SHORT)
    return path


def test_held_out_success_rises_beyond_its_interval(run_dir: Path) -> None:
    summary = json.loads((run_dir / "summary.json").read_text())
    start, end = summary["heldout_success_start"], summary["heldout_success_end"]
    assert summary["rl_steps"] == NUM_STEPS and start["n"] == end["n"] == 160
    assert end["low"] > start["high"], (start, end)


def test_every_sampled_token_of_a_step_is_trained_or_dropped_with_a_reason(run_dir: Path) -> None:
    steps = [row for row in read_metrics(run_dir / "metrics.jsonl") if row["kind"] == "rl"]
    assert len(steps) == NUM_STEPS
    for row in steps:
        assert row["sampled_tokens"] == row["trained_tokens"] + sum(row["dropped_tokens"].values())
        assert row["forest_tokens"] <= row["trajectory_tokens"] <= row["flat_tokens"]
    (end,) = [row for row in read_metrics(run_dir / "metrics.jsonl") if row["kind"] == "rl_end"]
    assert end["num_trained_groups"] == NUM_STEPS * 8
    assert 0 < end["num_unconsumed_groups"] <= 16, "at most a buffer of groups is dropped when the stage ends"


def test_ages_and_bypass_stay_within_the_window_bounds(run_dir: Path) -> None:
    steps = [row for row in read_metrics(run_dir / "metrics.jsonl") if row["kind"] == "rl"]
    assert max(row["age_max"] for row in steps) <= 2, "S + ceil((W-1)/P) with P=8, S=1, W=4"
    assert max(row["max_bypass"] for row in steps) <= 3


def test_on_policy_samples_agree_with_the_trainer_to_5e_5(run_dir: Path) -> None:
    first = next(row for row in read_metrics(run_dir / "metrics.jsonl") if row["kind"] == "rl")
    assert first["age_max"] == 0
    assert first["max_abs_logprob_gap"] <= 5e-5


def test_episodes_are_readable_and_equal_the_journal(run_dir: Path) -> None:
    lines = (run_dir / "episodes" / "step-000001.jsonl").read_text().splitlines()
    readable = [json.loads(line) for line in lines]
    tokenizer = Tokenizer.load(run_dir / "checkpoints" / "initial")
    with JournalReader.open(run_dir / "journal.sqlite") as journal:
        for entry in readable[:8]:
            episode = journal.read_episode(entry["episode_id"])
            assert episode.reward == entry["reward"] and entry["rewards"][0]["evidence"]
            question = entry["messages"][0]["content"]
            assert question in tokenizer.decode(episode.completions[0].prompt_ids)
            assert [call["num_sampled_tokens"] for call in entry["calls"]] == [c.num_sampled for c in episode.completions]


def test_the_final_policy_is_a_folder_that_transformers_loads(run_dir: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = run_dir / "checkpoints" / "final"
    assert AutoModelForCausalLM.from_pretrained(folder).config.vocab_size == len(AutoTokenizer.from_pretrained(folder))
    assert {path.name for path in (run_dir / "checkpoints").glob("step-*")} == {"step-000012", "step-000018"}


@pytest.mark.parametrize("arm", [pytest.param("rejection", marks=pytest.mark.slow), "supervision"])
def test_a_control_arm_starts_from_the_cold_start_of_a_run(run_dir: Path, tmp_path: Path, arm: str) -> None:
    start = f"model.path={run_dir / 'checkpoints' / 'cold-start'}"
    recipe = str(ROOT / "recipes" / f"quickstart-{arm}.toml")
    trunkline("train", recipe, start, f"run_dir={tmp_path / 'arm'}", *SHORT, "cold_start.steps=0", "stage.steps=3")
    summary = json.loads((tmp_path / "arm" / "summary.json").read_text())
    before = json.loads((run_dir / "summary.json").read_text())["heldout_success_start"]
    assert summary["heldout_success_start"] == before, "the same policy, tasks and seeds give the same episodes"
    assert summary["cpu_seconds"] > 0 and (tmp_path / "arm" / "checkpoints" / "final" / "model.safetensors").exists()


def test_show_prints_the_summary_and_an_episode(run_dir: Path) -> None:
    assert "one_hop.area" in trunkline("show", str(run_dir)).output
    assert "user: What is the area of" in trunkline("show", str(run_dir), "heldout.end-00000-a00").output
