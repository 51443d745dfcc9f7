"""`trunkline train` on a software task: groups of attempts in sandboxes, verdicts in sealed ones, a step of RL on them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.integration.test_swe_rollout import ROOT
from tests.software_task import BUG, CURE, FILES, write_task
from trunkline.errors import CertificateError
from trunkline.run.cli import app
from trunkline.run.recipe import load_recipe
from trunkline.run.wiring import make_policy_folder

pytestmark = pytest.mark.slow
AGENT = f"""
import json, os, urllib.request

body = json.dumps({{"model": os.environ["OPENAI_MODEL"], "messages": [{{"role": "user", "content": "Peru"}}]}}).encode()
headers = {{"authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "content-type": "application/json"}}
urllib.request.urlopen(urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body, headers)).read()
if os.urandom(1)[0] % 2:
    source = open("shop/__init__.py").read()
    open("shop/__init__.py", "w").write(source.replace({BUG!r}, {CURE!r}))
"""
RECIPE = """
name = "software"
[model]
path = {model!r}
[taskset]
name = "swe"
options = {{ paths = [{tasks!r}], heldout_share = 0.5 }}
[agent]
command = ["python3", {agent!r}]
max_tokens = 8
max_context = 64
[cold_start]
steps = 0
[stage]
steps = 1
[pool]
group_size = 4
[pool.window]
groups_per_step = 1
max_off_policy_steps = 0
[evaluation]
episodes = 2
before = false
greedy = false
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("swe")
    for name in ("a", "b"):
        write_task(made / "tasks" / name, **{"task.toml": FILES["task.toml"].replace("test/coupon", f"test/{name}")})
    (made / "agent.py").write_text(AGENT)
    asyncio.run(make_policy_folder(load_recipe(ROOT / "recipes" / "quickstart.toml"), made / "model"))
    places = {"model": made / "model", "tasks": made / "tasks", "agent": made / "agent.py"}
    (made / "recipe.toml").write_text(RECIPE.format(**{name: str(place) for name, place in places.items()}))
    return made


def test_a_step_is_trained_on_attempts_that_a_verdict_told_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_HOME", str(folder / "home"))
    run_dir = folder / "run"
    options = [f"run_dir={run_dir}", "allow_uncertified=true"]
    done = CliRunner().invoke(app, ["train", str(folder / "recipe.toml"), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (row,) = [row for row in map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines()) if row["kind"] == "rl"]
    assert row["trained_tokens"] > 0 and row["num_failed_episodes"] == 0
    episodes = [json.loads(line) for line in (run_dir / "episodes" / "step-000001.jsonl").read_text().splitlines()]
    assert {(episode["reward"], CURE in episode.get("patch", "")) for episode in episodes} == {(1.0, True), (0.0, False)}
    assert json.loads((run_dir / "summary.json").read_text())["uncertified"] == ["test/a", "test/b"]


def test_without_certificates_nothing_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_HOME", str(folder / "home"))
    error = CliRunner().invoke(app, ["train", str(folder / "recipe.toml"), f"run_dir={folder / 'refused'}"]).exception
    assert isinstance(error, CertificateError) and "trunkline tasks certify" in str(error)
    assert not (folder / "refused").exists()
