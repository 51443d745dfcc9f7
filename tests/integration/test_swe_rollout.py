"""`trunkline rollout` on software tasks: a real policy behind the gateway, agents in sandboxes, verdicts in sealed ones."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.in_process import trunkline
from tests.software_task import BUG, CURE, FILES, write_task
from trunkline.pool.journal_reader import JournalReader
from trunkline.run.predictions import predictions
from trunkline.run.recipe import load_recipe
from trunkline.run.wiring import make_policy_folder
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.certificates.store import CertificateStore
from trunkline.tasks.swe.certify import certify_task, task_subject
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.task import CodeTask, load_code_task
from trunkline.types import Episode

ROOT = Path(__file__).parents[2]
AGENT = f"""
import json, os, time, urllib.request

body = json.dumps({{"model": os.environ["OPENAI_MODEL"], "messages": [{{"role": "user", "content": "Peru"}}]}}).encode()
key = "Bearer " + os.environ["OPENAI_API_KEY"]
url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
urllib.request.urlopen(urllib.request.Request(url, body, {{"authorization": key, "content-type": "application/json"}})).read()
does = os.environ["TRUNKLINE_PROMPT"].split()
if "mend" in does:
    source = open("shop/__init__.py").read()
    open("shop/__init__.py", "w").write(source.replace({BUG!r}, {CURE!r}))
if "hang" in does:
    time.sleep(600)
print("done")
"""
RECIPE = """
name = "software"
[taskset]
name = "swe"
options = {{ paths = [{tasks!r}], heldout_share = 0.0 }}
[agent]
command = ["python3", {agent!r}]
max_tokens = 8
max_context = 64
deadline_s = 12
[cold_start]
steps = 0
[evaluation]
concurrency = 3
"""


async def certify(*tasks: CodeTask) -> None:
    """By one trial for all of them: their tests and their solution are the same."""
    async with IsolatedSandboxes.open(SandboxConfig()) as sandboxes:
        place = VerdictPlace(sandboxes, verdict_environment())
        found = await certify_task(tasks[0], place, sandboxes=sandboxes, repeats=1, attacks=())
    for subject in map(task_subject, tasks):
        CertificateStore.default().put(found.model_copy(update={"subject": subject.name, "key": subject.key}).sealed())


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rollout over three tasks, whose agents do what the instruction says."""
    folder = tmp_path_factory.mktemp("swe")
    for number, does in enumerate(("mend", "nothing", "mend and hang")):
        files = {"instruction.md": does, "task.toml": FILES["task.toml"].replace("test/coupon", f"swebench/{number}")}
        write_task(folder / "tasks" / f"t{number}", **files)
    (folder / "agent.py").write_text(AGENT)
    (folder / "recipe.toml").write_text(RECIPE.format(tasks=str(folder / "tasks"), agent=str(folder / "agent.py")))
    asyncio.run(certify(*(load_code_task(folder / "tasks" / f"t{number}") for number in range(3))))
    asyncio.run(make_policy_folder(load_recipe(ROOT / "recipes" / "quickstart.toml"), folder / "model"))
    options = ["--split", "train", "--episodes", "3", "--model", str(folder / "model"), "--out", str(folder / "run")]
    trunkline("rollout", str(folder / "recipe.toml"), *options)
    return folder / "run"


@pytest.fixture(scope="module")
def episodes(run_dir: Path) -> dict[str, Episode]:
    with JournalReader.open(run_dir / "journal.sqlite") as journal:
        return {episode.task_id: episode for episode in journal.episodes()}


def test_mended_work_earns_1_nothing_earns_0_and_work_cut_by_its_deadline_counts(episodes: dict[str, Episode]) -> None:
    ends = {task_id: (episode.status, episode.reward) for task_id, episode in episodes.items()}
    assert ends == {"swebench/0": ("finished", 1.0), "swebench/1": ("finished", 0.0), "swebench/2": ("deadline", 1.0)}
    assert all(episode.rewards[0].evidence for episode in episodes.values())


def test_the_agent_reached_the_model_through_the_gateway(episodes: dict[str, Episode]) -> None:
    assert [len(episode.completions) for episode in episodes.values()] == [1, 1, 1]


def test_what_each_attempt_did_to_its_workspace_is_in_its_record_and_is_shown(run_dir: Path, episodes: dict[str, Episode]) -> None:
    for task_id, is_mended in (("swebench/0", True), ("swebench/1", False), ("swebench/2", True)):
        assert (f"-    {BUG}\n+    {CURE}\n" in episodes[task_id].patch) is is_mended
    lines = [json.loads(line) for line in (run_dir / "episodes" / "rollout.jsonl").read_text().splitlines()]
    assert {line["task_id"]: line.get("patch", "") for line in lines} == {name: episode.patch for name, episode in episodes.items()}
    shown = trunkline("show", str(run_dir), episodes["swebench/0"].episode_id).output
    assert f"+    {CURE}" in shown and "create isolated" in shown


def test_the_run_gives_predictions(run_dir: Path, episodes: dict[str, Episode]) -> None:
    assert predictions(run_dir) == [
        {"instance_id": str(number), "model_name_or_path": "software-rollout", "model_patch": episodes[f"swebench/{number}"].patch}
        for number in range(3)
    ]
