"""`trunkline train` on software tasks by our own loop: a tiny policy made for their vocabulary, demonstrations, attempts in sandboxes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.software_task import BUG, CURE, FILES, SHOP, write_task
from trunkline.pool.journal_reader import JournalReader
from trunkline.run.cli import app
from trunkline.tasks.swe.practice import FILE, Fault, Practice

RECIPE = """
name = "tiny"
allow_uncertified = true
[taskset]
name = "swe"
options = {{ paths = [{train!r}], heldout_paths = [{heldout!r}], remember_verdicts = true }}
[model.scratch]
max_positions = 512
[agent]
max_turns = 2
max_tokens = 48
max_context = 512
[agent.workspace]
tools = ["read", "replace", "run_tests"]
edit_by = "line"
test_report = "word"
[cold_start]
steps = 4
batch_size = 2
[stage]
steps = 0
[evaluation]
episodes = 2
before = false
greedy = false
"""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    right = SHOP.replace(BUG, CURE)
    line = right.splitlines().index(f"    {CURE}") + 1
    faults = (Fault(line=line, right=f"    {CURE}", wrong=f"    {BUG}"),)
    practice = Practice(path="shop/__init__.py", text=right, faults=faults)
    for split in ("train", "heldout"):
        files = {"task.toml": FILES["task.toml"].replace("test/coupon", f"test/{split}"), f"solution/{FILE}": practice.model_dump_json()}
        write_task(folder / split, **files)
    (folder / "recipe.toml").write_text(RECIPE.format(train=str(folder / "train"), heldout=str(folder / "heldout")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_HOME", str(folder / "home"))
        done = CliRunner().invoke(app, ["train", str(folder / "recipe.toml"), f"run_dir={folder / 'run'}"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return folder / "run"


@pytest.mark.slow
def test_the_cold_start_imitates_demonstrations_and_the_policy_is_then_judged_on_held_out_tasks(run_dir: Path) -> None:
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["heldout_success_end"]["n"] == 2
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "supervised"][-1] == 4


def test_every_attempt_was_offered_the_tools_and_has_a_verdict(run_dir: Path) -> None:
    with JournalReader.open(run_dir / "journal.sqlite") as journal:
        episodes = list(journal.episodes())
    assert {(episode.task_id, episode.reward) for episode in episodes} == {("test/heldout", 0.0)}
    assert all(episode.completions and episode.status != "failed" for episode in episodes)
