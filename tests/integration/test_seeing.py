"""What one sees of a real run: metrics as documented, `trunkline show`, TensorBoard's file, the pictures."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.integration.seen_runs import ROOT, documented, show
from tests.unit.tensorboard_files import read_events, scalars_of
from tools.plot_arms import main
from trunkline.errors import ConfigError
from trunkline.metrics.console import ProgressView
from trunkline.metrics.jsonl import read_metrics
from trunkline.models.tokenizer import Tokenizer
from trunkline.pool.journal_reader import JournalReader
from trunkline.run import conductor
from trunkline.run.recipe import load_recipe

pytestmark = pytest.mark.timeout(600)  # the first test waits for the run of all


@pytest.fixture(scope="module")
def run_dir(healthy_run: Path) -> Path:
    return healthy_run


def rl_rows(run_dir: Path) -> list[dict[str, Any]]:
    return [row for row in read_metrics(run_dir / "metrics.jsonl") if row["kind"] == "rl"]


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_every_metric_that_a_run_writes_is_documented_once_and_the_reverse(run_dir: Path) -> None:
    """Rows of kind 'round' and 'resume' are in tests/slow: they need runs of their own."""
    written = {(row["kind"], key) for row in read_metrics(run_dir / "metrics.jsonl") for key in row}
    named = list(documented())
    assert len(named) == len(set(named))
    kinds = {kind for kind, _ in written}
    assert kinds == {"supervised", "evaluation", "rl", "rl_end"}
    assert written == {(kind, key) for kind, key in named if kind in kinds}


def test_samples_of_the_current_version_agree_with_the_trainer_in_every_step(run_dir: Path) -> None:
    gaps = [row["sampler_trainer_gap"] for row in rl_rows(run_dir) if "sampler_trainer_gap" in row]
    assert gaps and max(gaps) <= 5e-5
    assert all(row["mean_abs_logprob_gap"] <= row["max_abs_logprob_gap"] for row in rl_rows(run_dir))


def test_engine_and_trainer_are_seen_to_compute(run_dir: Path) -> None:
    for name in ("engine_utilisation", "trainer_utilisation"):
        shares = [row[name] for row in rl_rows(run_dir)]
        assert min(shares) >= 0 and max(shares) > 0


def test_summary_has_what_programs_read(run_dir: Path) -> None:
    summary = json.loads((run_dir / "summary.json").read_text())
    assert set(summary["heldout_success_start"]) == set(summary["heldout_success_end"]) == {"value", "low", "high", "n"}
    assert {"rl_steps", "cpu_seconds", "wall_seconds", "peak_rss_bytes", "seed"} <= set(summary)
    assert set(summary["certificates"]) == {"lookup"} and summary["uncertified"] == []
    assert (run_dir / "curve.png").stat().st_size > 1000


# --- show -------------------------------------------------------------------------------------------------------------


def test_show_prints_curve_evaluations_steps_tokens_and_two_episodes(run_dir: Path) -> None:
    text = show(run_dir)
    assert "quickstart · rl · seed 1 · finished" in text
    assert "1.00 ┤" in text and "└──" in text
    assert re.search(r"^start +0\.\d{3} ", text, re.MULTILINE) and re.search(r"^end +0\.\d{3} |^end +1\.000 ", text, re.MULTILINE)
    assert re.search(r"^ *3 +[01]\.\d{3} ", text, re.MULTILINE), "a row for the last step"
    sampled, trained = (sum(row[name] for row in rl_rows(run_dir)) for name in ("sampled_tokens", "trained_tokens"))
    assert re.search(rf"^trained +{trained:,} ", text, re.MULTILINE) and re.search(rf"^all +{sampled:,}", text, re.MULTILINE)
    assert "best episode of step 3" in text and "worst episode of step 3" in text


def test_show_is_plain_and_keeps_the_width_on_a_pipe(run_dir: Path) -> None:
    for width in (40, 100):
        text = show(run_dir, width=width)
        assert "\x1b" not in text
        _headline, *blocks = text.partition("\nbest episode")[0].split("\n\n")
        curve, *tables = blocks
        for block in (curve.partition("\n")[2], *tables):
            assert max(len(line) for line in block.splitlines()) <= width


def test_show_brackets_exactly_the_sampled_tokens_of_an_episode(run_dir: Path) -> None:
    with JournalReader.open(run_dir / "journal.sqlite") as journal:
        group_id = next(group_id for group_id, _, reason in journal.consumed() if reason == "trained")
        group = journal.read_group(group_id)
    tokenizer = Tokenizer.load(run_dir / "checkpoints" / "final")
    for episode in group.episodes:
        text = show(run_dir, episode.episode_id).partition("\n")[2]  # the first line explains the marks
        assert re.findall(r"⟦(.*?)⟧", text, re.DOTALL) == [tokenizer.decode(call.generation.token_ids) for call in episode.completions]
        others = [reward for other, reward in zip(group.episodes, group.valid_rewards, strict=True) if other is not episode]
        advantage = group.valid_rewards[episode.attempt] - sum(others) / len(others)
        assert text.count(f"trained at advantage {advantage:+.3f}") == len(episode.completions)
        assert f"reward {episode.reward:g} · trained in step 1, advantage {advantage:+.3f}" in text


def test_show_marks_by_colour_where_there_is_one(run_dir: Path) -> None:
    text = show(run_dir, colours=True)
    assert "⟦" not in text
    assert re.search(r"assistant: \x1b\[1;3[12]m<\|call\|>", text)


def test_show_says_why_an_evaluation_was_not_trained(run_dir: Path) -> None:
    text = show(run_dir, "heldout.end-00000-a00")
    assert "not trained: an evaluation" in text and "⟨" in text
    assert "⟦" not in text.partition("\n")[2]


def test_show_prints_a_run_that_crashed_in_the_middle_of_a_row(run_dir: Path, tmp_path: Path) -> None:
    crashed = shutil.copytree(run_dir, tmp_path / "crashed")
    (crashed / "summary.json").unlink()
    whole = (crashed / "metrics.jsonl").read_bytes()
    (crashed / "metrics.jsonl").write_bytes(whole[: whole.index(b'"kind": "rl", "step": 3') + 40])
    text = show(crashed)
    assert "not finished: the newest row is" in text
    assert "1.00 ┤" in text and re.search(r"^start ", text, re.MULTILINE) and not re.search(r"^end ", text, re.MULTILINE)


def test_show_prints_a_run_that_has_measured_nothing_yet(run_dir: Path, tmp_path: Path) -> None:
    shutil.copy(run_dir / "recipe.toml", tmp_path)
    assert "not finished, nothing measured yet" in show(tmp_path)


def test_show_prints_an_episode_without_its_journal(run_dir: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(run_dir, tmp_path / "bare", ignore=shutil.ignore_patterns("journal.sqlite*"))
    text = show(bare, "heldout.end-00000-a00")
    assert "without journal.sqlite there are no tokens to show" in text and "user: What is the area of" in text


def test_show_refuses_what_is_no_run_or_no_episode(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give a run directory"):
        show(tmp_path)
    with pytest.raises(ConfigError, match="no ended episode 'nope'"):
        show(run_dir, "nope")


def test_the_command_prints_all_this_on_a_pipe_without_torch(run_dir: Path) -> None:
    code = "import sys; from trunkline.run.cli import app; app(standalone_mode=False); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "show", str(run_dir)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "best episode of step 3" in done.stdout and "\x1b" not in done.stdout


# --- TensorBoard ------------------------------------------------------------------------------------------------------


def test_the_tensorboard_file_holds_the_numbers_of_metrics_jsonl(run_dir: Path) -> None:
    (path,) = run_dir.glob("events.out.tfevents.*")
    scalars = scalars_of(read_events(path))
    for row in rl_rows(run_dir):
        for name in ("reward", "entropy", "num_window_stalls", "engine_utilisation"):
            assert scalars["rl/" + name][row["step"]] == pytest.approx(row[name], rel=1e-6)
    assert set(scalars["evaluation/value"]) == {0, 3}, "before and after RL are two points of one curve"
    assert max(scalars["supervised.cold_start/loss"]) == 300


def test_a_missing_writer_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    recipe = load_recipe(ROOT / "recipes" / "quickstart.toml", [f"run_dir={tmp_path / 'run'}", 'metrics.writers=["wandb"]'])
    with pytest.raises(ConfigError, match="choose from tensorboard, trackio"):
        asyncio.run(conductor.train(recipe, ProgressView(Console(file=io.StringIO()))))
    assert not (tmp_path / "run").exists()


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_a_run_draws_its_curve_and_several_are_drawn_in_one_picture(run_dir: Path, tmp_path: Path) -> None:
    assert main([str(tmp_path / "arms.png"), f"rl={run_dir}", f"rl={run_dir}", f"another={run_dir}"]) == 0
    for picture in (run_dir / "curve.png", tmp_path / "arms.png"):
        assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 5000


def test_a_run_that_is_not_evaluated_after_its_training_is_not_drawn(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "arms.png"), f"rl={tmp_path}"]) == 2
    assert "is this a run directory?" in capsys.readouterr().err
    rows = [row for row in read_metrics(run_dir / "metrics.jsonl") if row.get("name") != "end"]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([str(tmp_path / "arms.png"), f"rl={tmp_path}"]) == 2
    assert "no held-out evaluation after its training" in capsys.readouterr().err


def test_an_arm_without_an_evaluation_before_its_stage_is_drawn(run_dir: Path, tmp_path: Path) -> None:
    rows = [row for row in read_metrics(run_dir / "metrics.jsonl") if row.get("name") != "start"]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([str(tmp_path / "arms.png"), f"supervision={tmp_path}", f"rl={run_dir}"]) == 0
