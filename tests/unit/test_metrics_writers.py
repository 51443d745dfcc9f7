"""Rows reach metrics.jsonl and every sink under dashboards' names; a sink that fails is told and left out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from trunkline.errors import ConfigError, TrunklineError
from trunkline.metrics.base import RunInfo, ScalarAxis
from trunkline.metrics.jsonl import read_metrics
from trunkline.metrics.writers import MetricsWriters, find_sinks


class Recording:
    """A sink of one's own."""

    def __init__(self, run: RunInfo) -> None:
        self.run = run
        self.rows: list[Mapping[str, Any]] = []
        self.is_closed = False
        made.append(self)

    def write(self, row: Mapping[str, Any]) -> None:
        self.rows.append(row)

    def close(self) -> None:
        self.is_closed = True


class Broken(Recording):
    """Fails at every row."""

    def write(self, row: Mapping[str, Any]) -> None:
        super().write(row)
        raise OSError(28, "No space left on device")


made: list[Recording] = []
OWN = "tests.unit.test_metrics_writers:Recording"


@pytest.fixture(autouse=True)
def forget() -> None:
    made.clear()


def info(tmp_path: Path) -> RunInfo:
    return RunInfo(tmp_path / "some-run", "project", {"seed": 1})


def test_a_sink_of_ones_own_gets_every_row_and_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsWriters.open(path, find_sinks([OWN]), info(tmp_path), pytest.fail) as writers:
        writers.write("rl", step=1, reward=0.5)
        writers.write("rl_end", num_trained_groups=8)
        own = sys.modules["tests.unit.test_metrics_writers"].made[0]
        assert own.run.name == "some-run"
        assert own.rows == read_metrics(path) and [row["kind"] for row in own.rows] == ["rl", "rl_end"]
        assert not own.is_closed
    assert own.is_closed


def test_a_sink_that_fails_is_told_once_and_the_others_go_on(tmp_path: Path) -> None:
    notes: list[str] = []
    path = tmp_path / "metrics.jsonl"
    with MetricsWriters.open(path, {"broken": Broken, "good": Recording}, info(tmp_path), notes.append) as writers:
        for step in range(3):
            writers.write("rl", step=step)
    broken, good = made
    assert len(read_metrics(path)) == len(good.rows) == 3
    assert len(broken.rows) == 1
    (note,) = notes
    assert "'broken' failed" in note and "No space left" in note and "metrics.jsonl has them all" in note


def test_a_run_directory_that_is_gone_fails_tensorboard_but_not_the_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    notes: list[str] = []
    run = RunInfo(tmp_path / "file", "project", {})
    (tmp_path / "file").write_text("in the way of a folder")
    with MetricsWriters.open(tmp_path / "metrics.jsonl", find_sinks(["tensorboard"]), run, notes.append) as writers:
        writers.write("rl", step=1)
        writers.write("rl", step=2)
    assert len(notes) == 1 and "'tensorboard' failed" in notes[0]
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2


def test_a_row_that_metrics_jsonl_refuses_reaches_no_sink(tmp_path: Path) -> None:
    writers = MetricsWriters.open(tmp_path / "metrics.jsonl", {"good": Recording}, info(tmp_path), pytest.fail)
    with writers, pytest.raises(TrunklineError, match="finite"):
        writers.write("rl", step=1, loss=float("nan"))
    assert made[0].rows == []


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("wandb", "no writer is called 'wandb'; choose from tensorboard, trackio"),
        ("no.such.package:Sink", "cannot be imported"),
        ("trunkline.metrics.base:Missing", "has no 'Missing'"),
    ],
)
def test_an_unknown_writer_is_refused(name: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        find_sinks([name])


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("trackio", "trackio")])
def test_a_missing_package_is_refused_with_the_extra_that_has_it(monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs the package {package}; pip install 'trunkline\[{name}\]'"):
        find_sinks([name])


def test_rows_become_scalars_under_kind_and_name() -> None:
    axis = ScalarAxis()
    row = {"time": 1.0, "kind": "rl", "step": 4, "reward": 0.5, "is_odd": True, "dropped_tokens": {"group without gradient": 3}}
    assert axis.scalars(row).values == {"rl/reward": 0.5, "rl/dropped_tokens/group_without_gradient": 3.0}
    assert axis.scalars(row).step == 4


def test_rows_without_a_step_stand_at_the_stages_last_one() -> None:
    axis = ScalarAxis(first_step=20)
    assert axis.scalars({"kind": "evaluation", "name": "start.greedy", "value": 0.5}).step == 20
    cold_start = axis.scalars({"kind": "supervised", "phase": "cold start", "step": 400, "loss": 2.0})
    assert (cold_start.step, dict(cold_start.values)) == (400, {"supervised.cold_start/loss": 2.0})
    axis.scalars({"kind": "rl", "step": 25})
    end = axis.scalars({"kind": "evaluation", "name": "end.greedy", "value": 0.75, "kinds": {"one_hop.area": 1.0}})
    assert (end.step, dict(end.values)) == (25, {"evaluation.greedy/value": 0.75, "evaluation.greedy/kinds/one_hop.area": 1.0})


def test_trackio_keeps_a_run_with_its_recipe(tmp_path: Path) -> None:
    """In a process of its own, for trackio reads TRACKIO_DIR once."""
    pytest.importorskip("trackio")
    code = """
import sys
from pathlib import Path
from trunkline.metrics.base import RunInfo
from trunkline.metrics.writers import MetricsWriters, find_sinks
folder = Path(sys.argv[1]) / "some-run"
folder.mkdir()
def write(resumed_at, *steps):
    info = RunInfo(folder, "project", {"seed": 7}, resumed_at)
    with MetricsWriters.open(folder / "metrics.jsonl", find_sinks(["trackio"]), info, sys.exit) as writers:
        for step in steps:
            writers.write("rl", step=step, reward=step / 4)
write(None, 1, 2)
write(2, 3)
import trackio
from trackio.sqlite_storage import SQLiteStorage
(run,) = trackio.Api().runs("project")
assert (run.name, run.config["seed"]) == ("some-run", 7), run
logs = [(log["step"], log["rl/reward"]) for log in SQLiteStorage.get_logs("project", run.name)]
assert logs == [(1, 0.25), (2, 0.5), (3, 0.75)], logs
assert "torch" not in sys.modules
"""
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "store"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", "what the library says of itself goes to stderr"
