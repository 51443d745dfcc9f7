"""The quickstart as it ships, one seed: from at most .35 after the cold start to at least .80, within 12 CPU-minutes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_quickstart_reaches_its_bound(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trunkline.run.cli", "train", "recipes/quickstart.toml", "seed=4", f"run_dir={tmp_path / 'run'}"]
    subprocess.run(command, cwd=ROOT, check=True)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["heldout_success_start"]["value"] <= 0.35
    assert summary["heldout_success_end"]["value"] >= 0.80
    assert summary["cpu_seconds"] <= 12 * 60
