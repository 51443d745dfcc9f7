"""`trunkline bench gateway --quick`: every phase runs through its real processes, and its numbers have a form. No speed is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trunkline.bench.gateway.bench import QUICK
from trunkline.bench.gateway.growth import PARTS

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the files of one run."""
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "trunkline.run.cli", "bench", "gateway", "--quick"]
    ran = subprocess.run(
        [*command, "--json", str(folder / "r.json"), "--plot", str(folder / "r.png")], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return folder


@pytest.fixture(scope="module")
def values(folder: Path) -> dict[tuple[str, str], float]:
    rows: list[dict[str, Any]] = json.loads((folder / "r.json").read_text())["rows"]
    assert all(row["holds"] is None for row in rows), "a quick run judges nothing"
    return {(row["row"], row["metric"]): row["value"] for row in rows}


@pytest.mark.parametrize(("wire", "num_calls"), QUICK.open_loop_calls)
def test_every_call_of_every_wire_is_answered_and_timed(values, wire, num_calls):
    row = f"{wire}: 40 calls/s"
    assert values[row, "calls answered, over 4 sessions"] == num_calls
    assert values[row, "failed calls"] == 0
    assert 0 < values[row, "added latency, median"] <= values[row, "latency with the stub, median"]
    assert values[row, "added latency, median"] <= values[row, "added latency, 99th percentile"]
    assert values[row, "added CPU a call"] > 0


def test_no_call_of_any_phase_fails(values):
    failed = {row: value for (row, metric), value in values.items() if metric == "failed calls"}
    assert len(failed) == len(QUICK.open_loop_calls) + 3
    assert set(failed.values()) == {0}


def test_what_limits_the_throughput_is_seen_by_whose_cores_are_busy(values):
    row = "4 sessions, as fast as they go"
    assert values[row, "throughput"] > 0
    assert values[row, "cores busy: gateway and journal"] > values[row, "cores busy: stub engine"] >= 0


def test_memory_is_read_as_often_as_planned(values):
    readings = [metric for row, metric in values if row == "resident memory" and metric.startswith("after ")]
    assert readings == [f"after {calls} calls" for calls in (0, 50, 100, 150, 200)]


def test_the_parts_of_a_call_are_timed_at_every_length(values):
    rows = sorted({row for row, _ in values if row.startswith("context of ")})
    assert len(rows) == len(QUICK.lengths)
    for row in rows:
        assert all(values[row, part] > 0 for part in PARTS)
        assert values[row, "all parts"] == pytest.approx(sum(values[row, part] for part in PARTS))
        assert values[row, "messages"] > 2


def test_the_plot_is_a_picture(folder):
    assert (folder / "r.png").read_bytes().startswith(PNG)
