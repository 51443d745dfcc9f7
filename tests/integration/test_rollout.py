"""`trunkline rollout`: the real command on a tiny random policy; what it prints and writes adds up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.in_process import trunkline
from trunkline.errors import ConfigError
from trunkline.pool.journal_reader import JournalReader
from trunkline.run.cli import app
from trunkline.run.recipe import load_recipe

RECIPE = str(Path(__file__).parents[2] / "recipes" / "quickstart.toml")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("rollout") / "run"
    return out, trunkline("rollout", RECIPE, "seed=5", "--episodes", "24", "--out", str(out))


@pytest.fixture(scope="module")
def summary(done: tuple[Path, Result]) -> dict[str, Any]:
    return json.loads((done[0] / "summary.json").read_text())


def test_success_is_printed_with_its_interval_and_the_policy_is_said_to_be_untrained(
    done: tuple[Path, Result], summary: dict[str, Any]
) -> None:
    out, result = done
    rate = summary["evaluations"]["rollout"]
    assert f"success {rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}] (n = 24)" in result.stdout
    assert "untrained policy" in result.stderr and "rollout: heldout 24/24" in result.stderr
    for part in (*rate["by_kind"], "mean reward", "tokens sampled", "CPU-s", str(out)):
        assert part in result.stdout


def test_the_numbers_are_those_of_the_journal(done: tuple[Path, Result], summary: dict[str, Any]) -> None:
    with JournalReader.open(done[0] / "journal.sqlite") as journal:
        episodes = list(journal.episodes())
    calls = [call for episode in episodes for call in episode.completions]
    assert len(episodes) == summary["num_episodes"] == 24
    assert summary["num_calls"] == len(calls)
    assert summary["sampled_tokens"] == sum(call.num_sampled for call in calls)
    assert summary["prompt_tokens"] == sum(len(call.prompt_ids) for call in calls)
    assert 0 < summary["reused_prompt_tokens"] < summary["prompt_tokens"]
    assert summary["num_deadline"] == sum(episode.status == "deadline" for episode in episodes)
    assert summary["num_failed"] == sum(summary["failures"].values()) == 0
    assert summary["cpu_seconds"] > 0 and summary["wall_seconds"] >= summary["rollout_seconds"]


def test_the_recipe_and_readable_episodes_are_kept(done: tuple[Path, Result]) -> None:
    assert load_recipe(done[0] / "recipe.toml").seed == 5
    lines = (done[0] / "episodes" / "rollout.jsonl").read_text().splitlines()
    assert [json.loads(line)["task_id"] for line in lines] == [f"heldout/{index}" for index in range(24)]


def test_a_greedy_rollout_of_a_folder_on_training_tasks(done: tuple[Path, Result], tmp_path: Path) -> None:
    model = done[0] / "checkpoints" / "initial"
    options = ["--greedy", "--split", "train", "--episodes", "4", "--model", str(model), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["rollout", RECIPE, *options], catch_exceptions=False)
    assert result.exit_code == 0 and "untrained" not in result.stderr
    with JournalReader.open(tmp_path / "out" / "journal.sqlite") as journal:
        episodes = list(journal.episodes())
    assert {episode.task_id for episode in episodes} == {f"train/{index}" for index in range(4)}
    assert {call.sampling.temperature for episode in episodes for call in episode.completions} == {0.0}


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--split", "nowhere"], "splits are"), (["--model", "/no/such/folder"], "/no/such/folder")]
)
def test_a_mistake_is_named_and_nothing_is_written(tmp_path: Path, arguments: list[str], message: str) -> None:
    command = ["rollout", RECIPE, "--out", str(tmp_path / "out"), *arguments]
    error = CliRunner().invoke(app, command).exception
    assert isinstance(error, ConfigError) and message in str(error)
    assert not (tmp_path / "out").exists()
