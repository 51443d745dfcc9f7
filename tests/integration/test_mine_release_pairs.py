"""`trunkline tasks mine` on real release pairs from the package registry: tasks that can be judged, taken up after an interruption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.in_process import trunkline
from trunkline.errors import ConfigError, TaskError
from trunkline.tasks.factory.ledger import Entry, Ledger
from trunkline.tasks.swe.task import load_code_task

PAIRS = ("pypi:parse==1.21.0..1.21.1", "pypi:parse==1.20.1..1.20.2")
NAMES = ("parse-1.21.0-1.21.1", "parse-1.20.1-1.20.2")
PATIENCE_S = 240


def mine(out: Path, *options: str) -> tuple[str, ...]:
    return ("tasks", "mine", *PAIRS, "--out", str(out), "--jobs", "1", *options)


def started(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "trunkline.run.cli", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def entries(out: Path) -> dict[str, Entry]:
    return Ledger(out).entries() if (out / "candidates.jsonl").exists() else {}


def wait_for(process: subprocess.Popen[bytes], condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, "it ended before what the test waits for"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def worker_of(process: subprocess.Popen[bytes]) -> psutil.Process | None:
    children = psutil.Process(process.pid).children()
    return next((child for child in children if "trunkline.run.mining_worker" in " ".join(child.cmdline())), None)


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interrupted after its first candidate, then taken up by the same command."""
    out = tmp_path_factory.mktemp("mine") / "out"
    process = started(*mine(out))
    wait_for(process, lambda: entries(out))
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    assert worker_left_behind(out) == []
    trunkline(*mine(out))
    return out


def worker_left_behind(out: Path) -> list[str]:
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(out) in line]


def test_real_release_pairs_become_tasks(mined: Path) -> None:
    found = entries(mined)
    assert set(found) == set(NAMES)
    assert all(entry.is_valid for entry in found.values()), found
    lines = (mined / "candidates.jsonl").read_text().splitlines()
    assert len(lines) == len(NAMES), "what was done before the interruption is not done again"
    report = json.loads((mined / "report.json").read_text())
    assert (report["candidates"], report["valid"]) == (2, 2)
    assert report["cpu_s"]["run"] > 0


def test_a_task_says_what_is_wanted_and_holds_its_environment_but_no_future(mined: Path) -> None:
    for name in NAMES:
        task = load_code_task(mined / "tasks" / name)
        assert len(task.instruction) > 100
        assert task.settings.fail_to_pass
        assert task.settings.pass_to_pass
        lock = (task.folder / "environment" / "python.toml").read_text()
        assert "sha256" in lock
        assert 'name = "pytest"' in lock
        version = name.rpartition("-")[2]
        assert not any(version in path.read_text(errors="replace") for path in task.workspace.rglob("*.py"))
        assert not list(task.workspace.rglob(".git"))


def test_a_mined_task_pays_its_solution(mined: Path) -> None:
    folder = str(mined / "tasks" / NAMES[0])
    paid = json.loads(trunkline("tasks", "verify", folder, "--oracle", "--json").stdout.splitlines()[-1])
    assert paid["verdict"]["value"] == 1.0, paid


def test_mining_again_does_nothing(mined: Path) -> None:
    before = (mined / "candidates.jsonl").read_bytes()
    assert "valid                 2" in trunkline(*mine(mined)).stdout
    assert (mined / "candidates.jsonl").read_bytes() == before


def test_a_worker_that_is_killed_costs_its_candidate_and_nothing_else(mined: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = started(*mine(out))
    wait_for(process, lambda: entries(out))
    worker = worker_of(process)
    assert worker is not None
    worker.kill()
    assert process.wait(PATIENCE_S) == 0
    causes = sorted(entry.rejected[0].cause if entry.rejected else "valid" for entry in entries(out).values())
    assert causes == ["the worker died", "valid"]
    trunkline(*mine(out, "--again", "failed"))
    assert all(entry.is_valid for entry in entries(out).values())


def test_what_is_no_source_is_named(tmp_path: Path) -> None:
    for source, words in (
        ("github:nobody", "owner/name"),
        (str(tmp_path / "missing"), "missing"),
        ("pypi:parse==2..x..y", "names no releases"),
    ):
        with pytest.raises((ConfigError, TaskError), match=words):
            trunkline("tasks", "mine", source, "--out", str(tmp_path / "out"))
