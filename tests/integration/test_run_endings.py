"""How a run ends when something goes wrong: one clear error, the right exit code, no process left, nothing recorded lost."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from trunkline.pool.journal_reader import JournalReader
from trunkline.run.recipe import ScratchModel
from trunkline.run.scratch import prepare_folder
from trunkline.tasks.lookup import vocabulary

ROOT = Path(__file__).parents[2]
# A policy that knows nothing earns nothing, so that RL keeps sampling until it is ended.
SMALL = ["cold_start.steps=0", "evaluation.episodes=8", "evaluation.greedy=false", "taskset.harder_splits=[]", "pool.group_size=4"]
PATIENCE_S = 120.0


@contextlib.contextmanager
def training(run_dir: Path, *overrides: str, prefix: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    command = [
        *prefix,
        sys.executable,
        "-m",
        "trunkline.run.cli",
        "train",
        "recipes/quickstart.toml",
        f"run_dir={run_dir}",
        *SMALL,
        *overrides,
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run did not get there"
        time.sleep(0.05)


def is_sampling(run_dir: Path) -> bool:
    """True once RL episodes are in the journal."""
    path = run_dir / "journal.sqlite"
    if not path.exists():
        return False
    with JournalReader.open(path) as journal:
        return any(True for _ in journal.groups())


def parts_of(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """The engine's and the trainer's process."""
    children = psutil.Process(process.pid).children(recursive=True)
    return {name: child for child in children for name in ("engine", "trainer") if f"trunkline.{name}.server" in child.cmdline()}


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=20)
    return not alive


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_ends_cleanly_and_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    with training(tmp_path / "run") as process:
        until(lambda: is_sampling(tmp_path / "run"), process)
        parts = parts_of(process)
        assert set(parts) == {"engine", "trainer"}
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in stderr and "Traceback" not in stderr
    assert gone(list(parts.values()))


@pytest.mark.parametrize("part", ["engine", pytest.param("trainer", marks=pytest.mark.slow)])
def test_a_part_that_is_killed_ends_the_run_with_its_name_and_keeps_the_journal(tmp_path: Path, part: str) -> None:
    with training(tmp_path / "run") as process:
        until(lambda: is_sampling(tmp_path / "run"), process)
        parts = parts_of(process)
        parts[part].kill()
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"the {part} process ended with status -9" in stderr and "Traceback" not in stderr
    assert gone(list(parts.values()))
    with JournalReader.open(tmp_path / "run" / "journal.sqlite") as journal:
        assert any(episode.episode_id.startswith("heldout.start") for episode in journal.episodes())


def test_parts_end_when_the_conductor_is_killed(tmp_path: Path) -> None:
    with training(tmp_path / "run") as process:
        until(lambda: is_sampling(tmp_path / "run"), process)
        parts = parts_of(process)
        process.kill()
        assert gone(list(parts.values()))


def test_a_part_that_is_still_starting_ends_when_the_conductor_is_killed(tmp_path: Path) -> None:
    with training(tmp_path / "run") as process:
        until(lambda: "trainer" in parts_of(process), process)
        parts = parts_of(process)
        process.kill()
        assert gone(list(parts.values()))


def test_a_full_disk_ends_the_run_and_what_was_acknowledged_is_there(tmp_path: Path) -> None:
    limit = ["sh", "-c", 'ulimit -f 6000; exec "$@"', "sh"]  # blocks of 512 bytes: no file beyond 3 MB
    with training(tmp_path / "run", prefix=limit) as process:
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "journal" in stderr and "Traceback" not in stderr
    with JournalReader.open(tmp_path / "run" / "journal.sqlite") as journal:
        assert sum(1 for _ in journal.episodes()) > 8


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, training(tmp_path / "run", f"gateway.port={taken.getsockname()[1]}") as process:
        _, stderr = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 2
        assert f"port {taken.getsockname()[1]} of 127.0.0.1 is in use" in stderr


def test_an_unreadable_model_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with training(tmp_path / "run", f"model.path={tmp_path / 'model'}") as process:
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert str(tmp_path / "model") in stderr and "Traceback" not in stderr


def test_a_truncated_checkpoint_ends_the_run_with_its_name(tmp_path: Path) -> None:
    model = tmp_path / "model"
    prepare_folder(model, ScratchModel(), pieces=vocabulary.PIECES, characters=vocabulary.CHARACTERS)
    (model / "model.safetensors").write_bytes(b"not weights")
    with training(tmp_path / "run", f"model.path={model}") as process:
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert str(model / "model.safetensors") in stderr and "Traceback" not in stderr


def test_a_run_directory_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text("seed = 1")
    with training(tmp_path / "run") as process:
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "already holds a run" in stderr


def test_an_uncertifiable_taskset_is_refused_unless_asked_for(tmp_path: Path) -> None:
    with training(tmp_path / "run", "taskset.name=nothing") as process:
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "lookup" in stderr, "the error lists the choices"


def test_summary_has_what_programs_read(tmp_path: Path) -> None:
    with training(tmp_path / "run", "stage.method=supervision", "stage.steps=2") as process:
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(summary["heldout_success_start"]) == set(summary["heldout_success_end"]) == {"value", "low", "high", "n"}
    assert {"rl_steps", "cpu_seconds", "wall_seconds", "peak_rss_bytes", "seed"} <= set(summary)
    assert set(summary["certificates"]) == {"lookup"} and summary["uncertified"] == []
    assert (tmp_path / "run" / "curve.png").stat().st_size > 1000
    assert "held-out success" in stdout
