"""What a resumed run may change, what it reads back, and what it finds wrong before it begins."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from trunkline.errors import ConfigError
from trunkline.evals.heldout import Evaluation
from trunkline.evals.statistics import proportion
from trunkline.metrics.jsonl import MetricsLog, newest_rows, read_metrics
from trunkline.metrics.processes import ProcessMeter
from trunkline.pool.file_lock import lock_file
from trunkline.pool.journal import Journal
from trunkline.run.costs import Costs, RunMeter
from trunkline.run.directory import RunDirectory
from trunkline.run.history import RunHistory, evaluation_row
from trunkline.run.recipe import Recipe, load_recipe
from trunkline.run.resume import TrainArguments, load_resumption


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """Of a run of 5 steps that was started."""
    recipe = Recipe.model_validate({"run_dir": tmp_path / "run", "stage": {"steps": 5}})
    return RunDirectory.create(recipe)


# --- what was asked ---------------------------------------------------------------------------------------------------


def test_a_run_is_resumed_with_or_without_its_recipe() -> None:
    assert TrainArguments.parse(["resume=runs/a", "stage.steps=9"]) == TrainArguments(Path("runs/a"), None, ("stage.steps=9",))
    assert TrainArguments.parse(["r.toml", "seed=2", "resume=runs/a"]) == TrainArguments(Path("runs/a"), Path("r.toml"), ("seed=2",))
    assert TrainArguments.parse(["r.toml", "seed=2"]) == TrainArguments(None, Path("r.toml"), ("seed=2",))
    for wrong in (["seed=2"], ["resume=a", "resume=b"]):
        with pytest.raises(ConfigError, match="give a recipe, or one resume=RUN_DIR"):
            TrainArguments.parse(wrong)


def test_what_changes_no_training_may_change_and_steps_may_grow(directory: RunDirectory) -> None:
    overrides = ["stage.steps=9", "evaluation.episodes=7", "gateway.port=8123", "stage.checkpoint_every=2", "engine.max_batch=3"]
    resumption = load_resumption(directory.path, None, overrides)
    assert resumption.changed["stage.steps"] == (5, 9) and resumption.has_more_steps
    assert resumption.recipe.evaluation.episodes == 7
    assert load_resumption(directory.path, None, ()).changed == {}


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("stage.steps=4", r"stage.steps \(was 5, now 4\)"),
        ("seed=2", r"seed \(was 1, now 2\)"),
        ("pool.group_size=3", "pool.group_size"),
        ('taskset.options={kinds={"one_hop.area"=1}}', "taskset.options.kinds.one_hop.area"),
        ("run_dir=elsewhere", "run_dir"),
    ],
)
def test_another_training_is_refused_with_the_knob_named(directory: RunDirectory, override: str, named: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot go on under another recipe: {named}"):
        load_resumption(directory.path, None, [override])


def test_a_given_recipe_must_say_what_the_run_says(directory: RunDirectory, tmp_path: Path) -> None:
    given = tmp_path / "given.toml"
    given.write_text("[stage]\nsteps = 5\n")
    assert load_resumption(directory.path, given, ()).recipe == load_recipe(directory.path / "recipe.toml")
    given.write_text("[stage]\nsteps = 5\nbaseline = 'group_normalised'\n")
    with pytest.raises(ConfigError, match=r"stage\.baseline"):
        load_resumption(directory.path, given, ())


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run to resume"):
        load_resumption(tmp_path, None, ())


# --- what is read back ------------------------------------------------------------------------------------------------


def an_evaluation() -> Evaluation:
    by_kind = {"one_hop.area": proportion(3, 7), "two_hop.pair": proportion(5, 6)}
    return Evaluation("heldout.end.greedy", proportion(8, 13), by_kind, 3, ())


def test_a_finished_evaluation_is_read_back_exactly(directory: RunDirectory) -> None:
    log = MetricsLog(directory.path / "metrics.jsonl")
    log.write("evaluation", **evaluation_row(an_evaluation(), name="end.greedy", split="heldout", step=5))
    history = RunHistory(read_metrics(log.path), is_resumed=True)
    assert history.evaluation("end.greedy", step=5, num_episodes=16) == an_evaluation()


def test_an_evaluation_of_another_policy_or_size_is_made_anew(directory: RunDirectory) -> None:
    row = {"kind": "evaluation", **evaluation_row(an_evaluation(), name="end", split="heldout", step=5)}
    history = RunHistory([row], is_resumed=True)
    assert history.evaluation("end", step=9, num_episodes=16) is None
    assert history.evaluation("end", step=5, num_episodes=20) is None
    assert history.evaluation("end.greedy", step=5, num_episodes=16) is None


def test_costs_add_up_over_incarnations() -> None:
    rows = [
        {"kind": "supervised", "cpu_seconds": 5.0, "wall_seconds": 9.0, "peak_rss_bytes": 70},
        {"kind": "evaluation", "cpu_seconds": 5.0, "evaluation_cpu_seconds": 2.0, "wall_seconds": 12.0, "peak_rss_bytes": 50},
        {"kind": "rl_end"},
    ]
    earlier = Costs.of_rows(rows)
    assert earlier == Costs(5.0, 2.0, 12.0, 70)
    meter, own = RunMeter(ProcessMeter(), earlier), ProcessMeter()
    costs = meter.costs()
    assert costs.cpu_seconds >= 5.0 + own.cpu_seconds() - 0.5 and costs.wall_seconds > 12.0
    assert (costs.evaluation_cpu_seconds, costs.peak_rss_bytes) == (pytest.approx(2.0, abs=0.05), 70)


def test_of_a_step_that_was_done_again_the_last_row_counts() -> None:
    rows = [{"kind": "rl", "step": step, "loss": loss} for step, loss in ((1, 0.1), (2, 0.2), (3, 0.3), (2, 0.4))]
    assert [(row["step"], row["loss"]) for row in newest_rows([*rows, {"kind": "resume"}], "rl", by="step")] == [
        (1, 0.1),
        (2, 0.4),
        (3, 0.3),
    ]


# --- what is found wrong ----------------------------------------------------------------------------------------------


def write_journal(directory: RunDirectory, *, num_starts: int) -> None:
    async def main() -> None:
        for _ in range(num_starts):
            await Journal.open(directory.journal).close()

    asyncio.run(main())


def test_a_journal_that_lost_steps_or_starts_is_refused(directory: RunDirectory) -> None:
    log = MetricsLog(directory.path / "metrics.jsonl")
    write_journal(directory, num_starts=1)
    assert RunHistory.read(directory).newest_checkpoint == 0
    log.write("resume", incarnation=2, restored_step=0)
    with pytest.raises(ConfigError, match=r"lost records: it knows 1 starts and step 0, metrics.jsonl beside it tells of 2 and 0"):
        RunHistory.read(directory)
    write_journal(directory, num_starts=1)
    assert RunHistory.read(directory).first_unreported_incarnation == 2
    log.write("rl", step=3, loss=0.1)
    with pytest.raises(ConfigError, match=r"knows 2 starts and step 0, metrics.jsonl beside it tells of 2 and 3"):
        RunHistory.read(directory)


def test_a_missing_journal_is_refused_once_something_was_recorded_in_it(directory: RunDirectory) -> None:
    log = MetricsLog(directory.path / "metrics.jsonl")
    log.write("supervised", phase="cold start", step=1)
    assert RunHistory.read(directory).is_resumed
    log.write("evaluation", **evaluation_row(an_evaluation(), name="start", split="heldout", step=0))
    with pytest.raises(ConfigError, match="lost records"):
        RunHistory.read(directory)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + bytes(84), b"something else"])
def test_a_file_that_is_no_journal_any_more_is_refused_and_left_as_it_is(directory: RunDirectory, content: bytes) -> None:
    directory.journal.write_bytes(content)
    with pytest.raises(ConfigError, match=r"journal.sqlite"):
        RunHistory.read(directory)
    assert directory.journal.read_bytes() == content


# --- the directory ----------------------------------------------------------------------------------------------------


def test_one_process_works_on_a_run_and_a_dying_one_is_waited_for(directory: RunDirectory) -> None:
    with directory.held(), pytest.raises(BlockingIOError):
        lock_file(directory.path / "run.lock", wait_s=0.0)
    os.close(lock_file(directory.path / "run.lock", wait_s=0.0))


def test_the_newest_two_step_checkpoints_are_kept_and_none_of_a_later_history(directory: RunDirectory) -> None:
    for step in (3, 6, 9, 12):
        directory.step_checkpoint(step).mkdir()
    directory.checkpoint("cold-start").mkdir()
    directory.remove_outdated_checkpoints(9)
    assert {path.name for path in (directory.path / "checkpoints").iterdir()} == {"step-000006", "step-000009", "step-000012", "cold-start"}


def test_a_checkpoint_appears_whole_or_not_at_all(directory: RunDirectory) -> None:
    with contextlib.suppress(RuntimeError), directory.replacing_checkpoint("final") as folder:
        folder.mkdir()
        (folder / "half").write_text("half")
        raise RuntimeError
    assert not directory.checkpoint("final").exists()
    with directory.replacing_checkpoint("final") as folder:
        folder.mkdir()
        (folder / "whole").write_text("whole")
    assert [path.name for path in directory.checkpoint("final").iterdir()] == ["whole"]


def test_what_killed_processes_were_writing_is_removed(directory: RunDirectory) -> None:
    half = directory.checkpoint(".step-000003.77.tmp")
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    (directory.weights / ".weights-1.3.safetensors.77.tmp").write_bytes(b"half")
    directory.step_checkpoint(3).mkdir()
    directory.remove_leftovers()
    assert [path.name for path in (directory.path / "checkpoints").iterdir()] == ["step-000003"]
    assert not list(directory.weights.iterdir())
