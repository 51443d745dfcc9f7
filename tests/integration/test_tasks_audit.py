"""`trunkline tasks audit`: recorded attempts judged again; what a run was rewarded for and what was right are told apart."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.software_task import BUG, CURE, FILES, write_task
from trunkline.pool.journal import Journal
from trunkline.run.cli import app
from trunkline.tasks.formats.git_patch import patch_of
from trunkline.tasks.swe.task import CodeTask
from trunkline.types import Episode, Failure, FileChange, Reward, Task

BY_SCRIPT = FILES["task.toml"] + '        verifier = "script"\n'  # needs no certificate
SCRIPT = """\
    #!/bin/sh
    cp -r /tests/tree/. /workspace
    if python3 -m pytest -q >&2; then echo 1; else echo 0; fi > /logs/verifier/reward.txt
    """
RECIPE = 'name = "audited"\n[taskset]\nname = "swe"\noptions = {{ paths = [{paths!r}], heldout_share = 0.0 }}\n'


def patch(task: CodeTask, old: str, new: str) -> str:
    path = "shop/__init__.py"
    text = (task.workspace / path).read_text().replace(old, new)
    return patch_of([FileChange(path, "file", 0o644, text.encode())], task.workspace)


def episode(group: str, attempt: int, changes: str, *, given: float | None) -> Episode:
    rewards = () if given is None else (Reward("outcome", given, "as it was given"),)
    failure = Failure("agent", "AgentError", "broke") if given is None else None
    status = "failed" if given is None else "finished"
    return Episode(f"{group}-a{attempt:02d}", group, "test/coupon", attempt, status, (), (), rewards, failure, patch=changes)


async def record(folder: Path, task: CodeTask) -> None:
    """A group that was trained on at step 3, one that never was, and an evaluation."""
    right, wrong = patch(task, BUG, CURE), patch(task, BUG, "return 0")
    journal = Journal.open(folder / "journal.sqlite")
    for index, group in enumerate(("g000000", "g000001")):
        await journal.record_group(group, index, Task("test/coupon", "swe", "bug", (), {}))
    attempts = [(right, 1.0), (wrong, 1.0), (right, 0.0), ("", 0.0), (wrong, None)]
    for number, (changes, given) in enumerate(attempts):
        await journal.record_episode(episode("g000000", number, changes, given=given))
    await journal.record_episode(episode("g000001", 0, right, given=1.0))
    await journal.record_episode(episode("start-00000", 0, "diff --git a/no b/no\n--- a/no\n+++ b/no\n@@ -1 +1 @@\n-a\n+b\n", given=0.0))
    await journal.record_consumed(["g000000"], step=3, reason="trained")
    await journal.close()


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    task = write_task(folder / "tasks" / "coupon", **{"task.toml": BY_SCRIPT, "tests/test.sh": SCRIPT})
    (folder / "recipe.toml").write_text(RECIPE.format(paths=str(folder / "tasks")))
    asyncio.run(record(folder, task))
    return folder


def test_counts_of_what_was_rewarded_and_what_was_right_by_moment(run_dir: Path, tmp_path: Path) -> None:
    found = tmp_path / "audit.json"
    done = CliRunner().invoke(app, ["tasks", "audit", str(run_dir), "--json", str(found), "--plot", str(tmp_path / "audit.png")])
    assert done.exit_code == 0, done.output
    trained, start, unused = json.loads(found.read_text())
    counts = {"num_attempts": 4, "num_rewarded": 2, "num_right": 2, "num_fooled": 1, "num_missed": 1, "num_unjudged": 1}
    assert trained.items() >= {"when": "training", "step": 3, **counts}.items()
    assert trained["fooled"]["value"] == 0.25 and trained["fooled"]["low"] < 0.25 < trained["fooled"]["high"]
    assert (start["when"], start["num_attempts"], start["num_unjudged"]) == ("start", 0, 1), "its patch does not apply"
    assert (unused["when"], unused["num_right"]) == ("unused", 1)
    assert [line.split()[1:] for line in done.output.splitlines()[1:2]] == [
        ["step", "3", "4", "0.500", "0.500", "0.250", "0.250", "-", "1"]
    ]
    assert (tmp_path / "audit.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_over_other_tasks_is_named(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('name = "other"\n')
    done = CliRunner().invoke(app, ["tasks", "audit", str(tmp_path)])
    assert "is a run over taskset 'lookup'" in str(done.exception)
