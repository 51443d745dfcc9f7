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

from tests.in_process import trunkline
from trunkline.errors import ConfigError
from trunkline.models.checkpoint import init_decoder, save_decoder
from trunkline.models.config import DecoderConfig
from trunkline.pool.journal_reader import JournalReader
from trunkline.run.recipe import ScratchModel
from trunkline.run.scratch import prepare_folder
from trunkline.tasks.lookup import vocabulary

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "recipes" / "quickstart.toml")
# A policy that knows nothing earns nothing, so that RL keeps sampling until it is ended.
SMALL = [
    'taskset.options={kinds={"one_hop.area"=1},invented_share=0.0}',
    "taskset.harder_splits=[]",
    "cold_start.steps=0",
    "evaluation.episodes=8",
    "evaluation.greedy=false",
    "pool.group_size=4",
]
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def untaught(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The override that starts from a policy made here; to make one in the run takes a process more."""
    folder = tmp_path_factory.mktemp("untaught")
    sizes = ScratchModel(hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2, num_kv_heads=2)
    prepare_folder(folder, sizes, pieces=vocabulary.PIECES, characters=vocabulary.CHARACTERS)
    config = DecoderConfig.from_hf(json.loads((folder / "config.json").read_text()))
    save_decoder(init_decoder(config, seed=1), folder)
    return f"model.path={folder}"


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
def test_an_interrupted_run_ends_cleanly_and_leaves_no_process(untaught: str, tmp_path: Path, number: signal.Signals) -> None:
    with training(tmp_path / "run", untaught) as process:
        until(lambda: is_sampling(tmp_path / "run"), process)
        parts = parts_of(process)
        assert set(parts) == {"engine", "trainer"}
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in stderr and "Traceback" not in stderr
    assert gone(list(parts.values()))


@pytest.mark.slow  # test_crash_resume kills each part once
@pytest.mark.parametrize("part", ["engine", "trainer"])
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


@pytest.mark.slow  # test_crash_resume kills the conductor, too
def test_parts_end_when_the_conductor_is_killed(tmp_path: Path) -> None:
    with training(tmp_path / "run") as process:
        until(lambda: is_sampling(tmp_path / "run"), process)
        parts = parts_of(process)
        process.kill()
        assert gone(list(parts.values()))


def test_a_part_that_is_still_starting_ends_when_the_conductor_is_killed(untaught: str, tmp_path: Path) -> None:
    with training(tmp_path / "run", untaught) as process:
        until(lambda: "trainer" in parts_of(process), process)
        parts = parts_of(process)
        process.kill()
        assert gone(list(parts.values()))


def test_a_full_disk_ends_the_run_and_what_was_acknowledged_is_there(untaught: str, tmp_path: Path) -> None:
    limit = ["sh", "-c", 'ulimit -f 4000; exec "$@"', "sh"]  # blocks of 512 bytes: no file beyond 2 MB
    with training(tmp_path / "run", untaught, prefix=limit) as process:
        _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "journal" in stderr and "Traceback" not in stderr
    with JournalReader.open(tmp_path / "run" / "journal.sqlite") as journal:
        assert sum(1 for _ in journal.episodes()) > 8


def test_a_port_in_use_is_named(untaught: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is in use"):
            trunkline("rollout", QUICKSTART, f"gateway.port={port}", untaught, "--out", str(tmp_path / "run"))


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
    with pytest.raises(ConfigError, match="already holds a run"):
        trunkline("train", QUICKSTART, f"run_dir={tmp_path / 'run'}", *SMALL)


def test_an_uncertifiable_taskset_is_refused_unless_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lookup"):  # it lists the choices
        trunkline("train", QUICKSTART, f"run_dir={tmp_path / 'run'}", *SMALL, "taskset.name=nothing")
