"""Sandboxes from the command line: training with the agent inside, the benchmark, and the page of the docs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.in_process import trunkline
from trunkline.errors import ConfigError
from trunkline.run.recipe import load_recipe

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "recipes" / "quickstart.toml"
SHORT = [
    'taskset.options={kinds={"one_hop.area"=1},invented_share=0.0}',
    "taskset.harder_splits=[]",
    "cold_start.steps=0",
    "stage.steps=1",
    "evaluation.episodes=4",
    "evaluation.concurrency=4",
    "evaluation.greedy=false",
    "pool.group_size=4",
    "pool.window.groups_per_step=1",
]


def test_the_quickstart_trains_with_its_agent_in_sandboxes(healthy_run: Path, tmp_path: Path) -> None:
    policy = f"model.path={healthy_run / 'checkpoints' / 'cold-start'}"
    trunkline("train", str(QUICKSTART), f"run_dir={tmp_path / 'run'}", "sandbox.kind=isolated", policy, *SHORT)
    (row,) = [row for row in map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) if row["kind"] == "rl"]
    assert row["num_failed_episodes"] == 0 and row["trained_tokens"] > 0
    episodes = [json.loads(line) for line in (tmp_path / "run" / "episodes" / "step-000001.jsonl").read_text().splitlines()]
    acts = [act for episode in episodes for act in episode["acts"]]
    assert {"create", "tool", "run", "destroy"} <= {act["op"] for act in acts}
    assert all(act["detail"].startswith("isolated (") for act in acts if act["op"] == "create")
    assert "create isolated (" in trunkline("show", str(tmp_path / "run"), episodes[0]["episode_id"]).stdout


def test_an_unsafe_program_runs_on_the_host_only_if_asked_by_name_and_the_record_says_so(healthy_run: Path, tmp_path: Path) -> None:
    command = f"agent.command={json.dumps([sys.executable, '-c', 'print(1)'])}"
    policy = str(healthy_run / "checkpoints" / "cold-start")
    options = [command, "--episodes", "2", "evaluation.concurrency=2", "--model", policy, "--out", str(tmp_path / "run")]
    trunkline("rollout", str(QUICKSTART), "sandbox.kind=unsafe", *options)
    episodes = [json.loads(line) for line in (tmp_path / "run" / "episodes" / "rollout.jsonl").read_text().splitlines()]
    assert all(episode["acts"][0]["op"] == "unsafe" for episode in episodes)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sandbox.kind=unsafe"], "no agent.command"),
        (["sandbox.kind=container", 'agent.command=["x"]'], "sandbox.image"),
        (["sandbox.image=debian", 'agent.command=["x"]'], "go together"),
        (["sandbox.kind=chroot"], "sandbox.kind"),
    ],
)
def test_a_knob_that_would_not_be_honoured_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(QUICKSTART, overrides)


def test_the_benchmark_counts_what_is_left_and_writes_its_form(tmp_path: Path) -> None:
    sizes = ["--commands", "10", "--starts", "4", "--cycles", "2"]
    files = ["--json", str(tmp_path / "b.json"), "--plot", str(tmp_path / "b.png")]
    command = [sys.executable, "-m", "trunkline.run.cli", "bench", "sandbox", *sizes, *files]
    done = subprocess.run(command, capture_output=True, check=False, timeout=280)
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert done.returncode == (1 if any(row["holds"] is False for row in rows) else 0), "times depend on the machine; the exit code on them"
    assert [row["value"] for row in rows if row["row"] == "left after all sandboxes"] == [0] * 5
    (disk,) = [row["value"] for row in rows if row["metric"] == "disk"]
    assert 0 < disk <= 5
    assert (tmp_path / "b.png").stat().st_size > 10_000


def test_the_example_of_the_docs_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "05-sandbox.md").read_text(), flags=re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.splitlines()[-1] == "[('openai_agent.py', 'file')]", done.stderr
