"""`trunkline bench verifier --quick`: every part of the benchmark once, for real; its numbers say nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trunkline.run.cli import app

TASK = Path(__file__).parents[2] / "tasks" / "software" / "split-bill"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    files = ["--json", folder / "verifier.json", "--table", folder / "attacks.md", "--plot", folder / "verifier.png"]
    result = CliRunner().invoke(app, ["bench", "verifier", "--quick", "--tasks", *map(str, [TASK, *files])])
    assert result.exit_code == 0, (result.output, result.exception)
    return folder


def test_our_verifier_accepts_nothing_and_does_not_flake(written):
    rows = {(row["row"], row["metric"]): row for row in json.loads((written / "verifier.json").read_text())["rows"]}
    assert (rows["attacks on ours", "tried"]["value"], rows["attacks on ours", "accepted"]["holds"]) == (3, True)
    assert (rows["repeated verdicts", "made"]["value"], rows["repeated verdicts", "flakes"]["holds"]) == (3, True)
    assert rows["a certificate", "median"]["value"] > rows["a verdict on the solution", "median"]["value"] > 0


def test_the_same_attacks_fool_naive_verifiers(written):
    lines = (written / "attacks.md").read_text().splitlines()
    cells = {line.split(" | ")[0].strip("| "): re.findall(r"(\d) of 1", line) for line in lines[2:]}
    assert sorted(cells) == ["conftest-exit", "conftest-report-hook", "git-history"]
    assert all(ours == "0" and "1" in naive for *naive, ours in cells.values()), cells


def test_the_plot_is_drawn(written):
    assert (written / "verifier.png").stat().st_size > 10_000
