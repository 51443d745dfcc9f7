"""metrics.jsonl: what is written comes back; what cannot be written is refused; a crash costs the torn line only."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from trunkline.errors import InfraError, TrunklineError
from trunkline.metrics.jsonl import MetricsLog, read_metrics


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_a_line_carries_time_kind_and_numbers(path: Path) -> None:
    before = time.time()
    MetricsLog(path).write("rl", step=1, reward=0.5, kinds={"one_hop": 1.0})
    (row,) = read_metrics(path)
    assert before - 1 <= row.pop("time") <= time.time() + 1
    assert row == {"kind": "rl", "step": 1, "reward": 0.5, "kinds": {"one_hop": 1.0}}


def test_each_line_can_be_read_as_soon_as_write_returns(path: Path) -> None:
    log = MetricsLog(path)
    for step in range(3):
        log.write("rl", step=step)
        assert [row["step"] for row in read_metrics(path)] == list(range(step + 1))


def test_a_reopened_log_appends(path: Path) -> None:
    MetricsLog(path).write("rl", step=1)
    MetricsLog(path).write("rl", step=2)
    assert [row["step"] for row in read_metrics(path)] == [1, 2]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_numbers_are_refused_by_name(path: Path, value: float) -> None:
    with pytest.raises(TrunklineError, match=r"'kinds\.area\[1\]' of 'rl' is"):
        MetricsLog(path).write("rl", step=1, kinds={"area": [0.0, value]})
    assert not path.exists()


def test_a_value_without_json_form_is_refused_and_leaves_no_half_line(path: Path) -> None:
    log = MetricsLog(path)
    with pytest.raises(TypeError, match="not JSON serializable"):
        log.write("rl", step=object())
    log.write("rl", step=1)
    assert len(read_metrics(path)) == 1


def test_readers_skip_a_torn_last_line(path: Path) -> None:
    MetricsLog(path).write("rl", step=1)
    with path.open("ab") as file:
        file.write(b'{"time": 1.0, "ki')
    assert [row["step"] for row in read_metrics(path)] == [1]


@pytest.mark.parametrize("torn", [b"{", b'{"kind": "' + b"x" * 200_000])
def test_the_next_write_removes_a_torn_last_line(path: Path, torn: bytes) -> None:
    MetricsLog(path).write("rl", step=1)
    with path.open("ab") as file:
        file.write(torn)
    MetricsLog(path).write("rl", step=2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_file_that_is_one_torn_line_starts_anew(path: Path) -> None:
    path.write_bytes(b'{"time"')
    assert read_metrics(path) == []
    MetricsLog(path).write("rl", step=1)
    assert [row["step"] for row in read_metrics(path)] == [1]


@pytest.mark.parametrize("line", ["not json", "[1]"])
def test_a_bad_whole_line_is_named(path: Path, line: str) -> None:
    path.write_text(f'{{"kind": "rl"}}\n{line}\n')
    with pytest.raises(InfraError, match="line 2"):
        read_metrics(path)


def test_missing_files_and_folders_are_infra_errors(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match="cannot read"):
        read_metrics(tmp_path / "none.jsonl")
    with pytest.raises(InfraError, match="cannot write"):
        MetricsLog(tmp_path / "no" / "folder.jsonl").write("rl", step=1)
