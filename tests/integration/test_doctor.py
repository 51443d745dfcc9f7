"""The doctor on real short runs with planted faults: it names the right one first, and none on a healthy run.

Where a fault needs more steps than a test can pay for, rows of a real run are repeated and edited; the tests' names say so.
What needs more runs is in tests/slow/test_doctor_planted.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.in_process import trunkline
from tests.integration.doctor_runs import train_planted
from trunkline.evals.doctor import Diagnosis, diagnose
from trunkline.evals.finding import Finding
from trunkline.metrics.jsonl import read_metrics
from trunkline.run.rebuild_check import check_rebuilt

pytestmark = pytest.mark.timeout(900)  # the first test waits for the run of all

Row = dict[str, Any]


@pytest.fixture(scope="module")
def healthy(healthy_run: Path) -> Path:
    return healthy_run


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("untrained") / "run"
    sizes = ("hidden_size=16", "intermediate_size=32", "num_layers=1", "num_heads=2", "num_kv_heads=2")
    train_planted(path, *(f"model.scratch.{size}" for size in sizes), policy=None)
    return path


def finding(diagnosis: Diagnosis, check: str) -> Finding:
    return next(found for found in diagnosis.findings if found.check == check)


def edited(run_dir: Path, target: Path, edit: Callable[[int, Row], None], *, num_steps: int = 30) -> Path:
    """A copy of a run whose last RL row is repeated to `num_steps` rows, each passed to `edit` with its place from 0."""
    shutil.copytree(run_dir, target, ignore=shutil.ignore_patterns("checkpoints", "weights"))
    rows = read_metrics(run_dir / "metrics.jsonl")
    last = [row for row in rows if row["kind"] == "rl"][-1]
    steps = [{**last, "step": step + 1} for step in range(num_steps)]
    for step, row in enumerate(steps):
        edit(step, row)
    kept = [row for row in rows if row["kind"] != "rl"] + steps
    (target / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    return target


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trunkline.run.cli", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# --- real runs --------------------------------------------------------------------------------------------------------


def test_a_healthy_run_has_no_fault(healthy: Path) -> None:
    diagnosis = diagnose(healthy)
    assert not [found for found in diagnosis.findings if found.verdict == "fault"]
    assert diagnosis.is_finished and diagnosis.num_steps == 3
    for check in ("sampler/trainer gap", "all-equal groups", "stale samples", "entropy collapse", "rewritten history", "tools"):
        assert finding(diagnosis, check).verdict in ("ok", "warning"), check
    again = check_rebuilt(healthy)
    assert again.verdict == "ok" and again.value == 1.0, again


def test_a_policy_that_was_taught_nothing_has_all_equal_groups_for_lack_of_a_cold_start(untrained: Path) -> None:
    diagnosis = diagnose(untrained)
    assert diagnosis.findings[0].check == "all-equal groups" and diagnosis.findings[0].verdict == "fault"
    assert "all 0" in diagnosis.findings[0].measured
    assert "cold_start.steps" in diagnosis.most_likely_cause
    assert finding(diagnosis, "length cuts").verdict == "ok", "a random policy never ends its turns: max_tokens is not to blame"


def test_a_killed_run_without_a_step_is_read_and_its_missing_numbers_said(untrained: Path) -> None:
    diagnosis = diagnose(untrained)
    assert not diagnosis.is_finished and diagnosis.num_steps == 0
    assert finding(diagnosis, "gradient").verdict == "not measured"


def test_an_engine_that_serves_another_policy_is_a_gap_of_sampler_and_trainer(healthy: Path, tmp_path: Path) -> None:
    folders = healthy / "checkpoints"
    train_planted(tmp_path / "run", policy=folders / "cold-start", fault=f"engine-model={folders / 'final'}")
    first = diagnose(tmp_path / "run").findings[0]
    assert first.check == "sampler/trainer gap" and first.verdict == "fault"


def test_an_agent_that_changes_its_past_is_named(healthy: Path, tmp_path: Path) -> None:
    train_planted(tmp_path / "run", policy=healthy / "checkpoints" / "cold-start", fault="rewriting-agent")
    first = diagnose(tmp_path / "run").findings[0]
    assert first.check == "rewritten history" and first.verdict == "fault"
    assert check_rebuilt(tmp_path / "run").verdict == "fault", "nor is it what the recipe's loop would make of the record"


def test_the_command_prints_the_cause_and_ends_with_0_though_there_is_a_fault(untrained: Path) -> None:
    done = doctor(str(untrained))
    assert done.returncode == 0, done.stderr
    assert "Most likely cause:" in done.stdout and "all-equal groups" in done.stdout and "warning > 50%, fault > 90%" in done.stdout
    assert "\x1b[" not in done.stdout, "plain when piped"


def test_json_has_every_check_with_its_number_threshold_and_remedy(untrained: Path) -> None:
    answer = json.loads(trunkline("doctor", str(untrained), "--json").stdout)
    assert answer["findings"][0]["check"] == "all-equal groups" and answer["findings"][0]["value"] > 0.9
    assert len(answer["findings"]) == len({found["check"] for found in answer["findings"]}) >= 20
    assert all(found["threshold"] and found["measured"] for found in answer["findings"])


def test_a_folder_that_is_no_run_ends_with_1(tmp_path: Path) -> None:
    done = doctor(str(tmp_path))
    assert done.returncode == 1 and "recipe.toml" in done.stderr and "Traceback" not in done.stderr


# --- real runs, edited ------------------------------------------------------------------------------------------------


def number(name: str, of_step: Callable[[int], float]) -> Callable[[int, Row], None]:
    return lambda step, row: row.update({name: of_step(step)})


@pytest.mark.parametrize(
    ("check", "edit"),
    [
        ("learning rate", number("learning_rate", lambda step: 0.0)),
        ("gradient", number("grad_norm", lambda step: 0.0)),
        ("gradient", number("grad_norm", lambda step: 1e4)),
        ("trained tokens", number("trained_tokens", lambda step: 0)),
        ("stale samples", number("age_max", lambda step: 7)),
        ("entropy explosion", number("entropy", lambda step: 0.5 + step / 10)),
        ("reward", number("reward", lambda step: 0.8 - step / 50)),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_edited_rows_with_one_planted_number_have_that_fault_first(
    healthy: Path, tmp_path: Path, check: str, edit: Callable[[int, Row], None]
) -> None:
    first = diagnose(edited(healthy, tmp_path / "run", edit)).findings[0]
    assert (first.check, first.verdict) == (check, "fault")


def test_edited_rows_where_entropy_falls_to_nothing_at_a_poor_reward_are_a_collapse(healthy: Path, tmp_path: Path) -> None:
    def edit(step: int, row: Row) -> None:
        row.update(entropy=0.5 * 0.8**step, reward=0.3)

    first = diagnose(edited(healthy, tmp_path / "run", edit)).findings[0]
    assert (first.check, first.verdict) == ("entropy collapse", "fault")


def test_edited_rows_where_entropy_falls_because_the_task_is_solved_are_no_collapse(healthy: Path, tmp_path: Path) -> None:
    def edit(step: int, row: Row) -> None:
        row.update(entropy=0.5 * 0.8**step, reward=min(0.98, 0.3 + step / 20))

    assert finding(diagnose(edited(healthy, tmp_path / "run", edit)), "entropy collapse").verdict == "ok"


def test_edited_rows_with_a_flat_reward_warn_and_name_the_learning_rate(healthy: Path, tmp_path: Path) -> None:
    diagnosis = diagnose(edited(healthy, tmp_path / "run", number("reward", lambda step: 0.4 + 0.01 * (step % 3))))
    flat = finding(diagnosis, "reward")
    assert flat.verdict == "warning" and "stage.optimizer.lr" in flat.remedy


def test_edited_rows_whose_training_reward_alone_rises_warn_of_overfitting(healthy: Path, tmp_path: Path) -> None:
    run_dir = edited(healthy, tmp_path / "run", number("reward", lambda step: 0.2 + step / 40))
    rows = [{**row, "value": 0.3} if row["kind"] == "evaluation" else row for row in read_metrics(run_dir / "metrics.jsonl")]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    measured = finding(diagnose(run_dir), "held-out success")
    assert measured.verdict == "warning", measured


def test_edited_rows_of_an_idle_engine_warn_of_starvation(healthy: Path, tmp_path: Path) -> None:
    def edit(step: int, row: Row) -> None:
        row.update(engine_utilisation=0.1, wait_seconds=9.0, step_seconds=10.0)

    assert finding(diagnose(edited(healthy, tmp_path / "run", edit)), "starvation").verdict == "warning"


def test_an_edited_recipe_that_shuffles_rewards_is_named_first(healthy: Path, tmp_path: Path) -> None:
    run_dir = edited(healthy, tmp_path / "run", lambda step, row: None, num_steps=3)
    recipe = (run_dir / "recipe.toml").read_text().replace("shuffle_rewards = false", "shuffle_rewards = true")
    (run_dir / "recipe.toml").write_text(recipe)
    first = diagnose(run_dir).findings[0]
    assert (first.check, first.verdict) == ("shuffled rewards", "fault")


def test_rows_of_an_older_run_without_the_newer_metrics_are_not_measured_and_no_crash(healthy: Path, tmp_path: Path) -> None:
    kept = {"time", "kind", "step", "reward", "loss"}

    def edit(step: int, row: Row) -> None:
        for name in set(row) - kept:
            del row[name]

    diagnosis = diagnose(edited(healthy, tmp_path / "run", edit))
    for check in ("sampler/trainer gap", "learning rate", "gradient", "stale samples", "entropy collapse", "starvation"):
        assert finding(diagnosis, check).verdict == "not measured", check
    assert finding(diagnosis, "reward").verdict != "not measured"


def test_a_run_that_crashed_before_its_journal_and_in_the_middle_of_a_line_is_read(healthy: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text((healthy / "recipe.toml").read_text())
    (tmp_path / "metrics.jsonl").write_text('{"time": 1, "kind": "supervised", "loss": 2.0}\n{"time": 2, "ki')
    diagnosis = diagnose(tmp_path)
    assert not [found for found in diagnosis.findings if found.verdict in ("fault", "warning")]
    assert finding(diagnosis, "all-equal groups").verdict == "not measured"
