"""The grid of trainings: what runs, in which order, and how it is taken up again. The trainings themselves are tested elsewhere."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from trunkline.bench.grid import Grid, log_of, run_grid, runs_of
from trunkline.errors import ConfigError, InfraError
from trunkline.evals.statistics import one_sided_p
from trunkline.run.grid import table_of
from trunkline.run.recipe import load_recipe

GRIDS = Path(__file__).parents[2] / "recipes" / "grids"
TWO_ARMS = """
seeds = [1, 2]
[[arms]]
name = "rl"
recipe = "a.toml"
[[arms]]
name = "control"
recipe = "b.toml"
start = "rl"
overrides = ["stage.steps=3"]
"""


def _grid(tmp_path: Path, text: str = TWO_ARMS) -> Grid:
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text("name = 'x'\nno_such_key = 1\n")
    (tmp_path / "grid.toml").write_text(text)
    return Grid.load(tmp_path / "grid.toml")


def _finish(folder: Path, successes: float = 0.5, start: float | None = 0.2) -> None:
    folder.mkdir(parents=True)
    rate = {"value": successes, "low": 0.4, "high": 0.6, "n": 100}
    before = None if start is None else {**rate, "value": start}
    summary = {"run_dir": str(folder), "heldout_success_start": before, "heldout_success_end": rate, "evaluations": {}}
    (folder / "summary.json").write_text(json.dumps({**summary, "cpu_seconds": 60, "peak_rss_bytes": 2**30}))


def test_an_arm_begins_with_the_cold_start_of_its_seed_and_is_resumed_where_it_exists(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, control, *_ = runs_of(_grid(tmp_path), out)
    assert first.arguments(out) == [str(tmp_path / "a.toml"), "seed=1", f"run_dir={out}/rl-seed1"]
    assert f"model.path={out}/rl-seed1/checkpoints/cold-start" in control.arguments(out) and control.arguments(out)[-1] == "stage.steps=3"
    first.folder.mkdir(parents=True)
    (first.folder / "recipe.toml").write_text("")
    assert first.arguments(out) == [f"resume={out}/rl-seed1"]


def test_failed_runs_are_named_and_those_that_wait_for_them_too(tmp_path: Path) -> None:
    grid, out, lines = _grid(tmp_path), tmp_path / "out", list[str]()
    _finish(out / "rl-seed2")
    with pytest.raises(InfraError, match=r"2 runs failed .*1 runs had no cold start"):
        asyncio.run(run_grid(grid, out, jobs=2, say=lines.append))
    assert lines[0] == "1 runs are done, 3 to go, 2 at a time"
    assert {"FAILED: rl-seed1", "FAILED: control-seed2"} <= set(lines)
    assert "no_such_key" in log_of(runs_of(grid, out)[0]).read_text()


def test_the_table_has_a_row_a_finished_run(tmp_path: Path) -> None:
    grid, out = _grid(tmp_path), tmp_path / "out"
    _finish(out / "rl-seed1", 0.8)
    _finish(out / "control-seed1", 0.5, start=None)
    table = table_of(grid, out)
    assert table.row_count == 2
    assert list(table.columns[2].cells) == ["0.200", "0.200"], "a control's start is that of the arm it starts from"
    own, against_control = table.columns[6].cells
    assert own == "" and float(str(against_control)) < 1e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TWO_ARMS.replace('start = "rl"', 'start = "no"'), "no arm above it"),
        (TWO_ARMS.replace('name = "control"', 'name = "rl"'), "two arms"),
        (TWO_ARMS.replace("b.toml", "c.toml"), "do not exist"),
        ("seeds = []", "is no grid"),
        ("seeds = [", "is no grid"),
    ],
)
def test_a_wrong_grid_is_refused_with_its_fault(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _grid(tmp_path, text)


def test_one_sided_p_is_small_only_in_its_direction() -> None:
    assert one_sided_p(280, 400, base_successes=170, base_trials=400) < 1e-10
    assert one_sided_p(170, 400, base_successes=280, base_trials=400) > 0.99


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_grids_load_with_their_recipes(path: Path) -> None:
    for arm in Grid.load(path).arms:
        load_recipe(arm.recipe, [*arm.overrides, "model.path=somewhere"])
