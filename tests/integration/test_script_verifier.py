"""Harbor's own script as the verifier, in real sealed sandboxes: what it writes is the reward, and whatever is no number is no verdict."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from trunkline.errors import TaskError, VerifierError
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.formats.swebench import instance_of
from trunkline.tasks.formats.swebench_tasks import import_instance
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.place import VerdictPlace, oracle_changes
from trunkline.tasks.swe.script_verifier import ScriptVerifier
from trunkline.tasks.swe.task import load_code_task
from trunkline.types import FileChange, Work

pytestmark = pytest.mark.anyio
OURS = '[metadata.trunkline]\nworkspace = "workspace"\nverifier = "script"\n'
JUDGES_ANSWER = "#!/bin/sh\nif grep -q 42 answer.txt; then echo 1; else echo 0; fi > /logs/verifier/reward.txt\nexit 7\n"
PYTEST = """#!/bin/bash
cp -r /tests/tree/. /workspace/
if python3 -m pytest -q -p no:cacheprovider test_area.py >&2; then echo 1; else echo 0; fi > /logs/verifier/reward.txt
"""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def sandboxes(anyio_backend: str) -> AsyncIterator[IsolatedSandboxes]:
    async with IsolatedSandboxes.open(SandboxConfig()) as opened:
        yield opened


def made(folder: Path, script: str, config: str = OURS, files: dict[str, str] | None = None) -> Path:
    texts = {
        "task.toml": config,
        "instruction.md": "Do it.",
        "tests/test.sh": script,
        "environment/workspace/answer.txt": "?",
        **(files or {}),
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def written(path: str, content: str) -> FileChange:
    return FileChange(path, "file", 0o644, content.encode())


async def test_the_reward_is_what_the_script_writes_and_its_status_says_nothing(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    verifier = ScriptVerifier.load(made(tmp_path, JUDGES_ANSWER), sandboxes)
    (right,) = await verifier.verify(Work("", (written("answer.txt", "42"),)))
    (none,) = await verifier.verify(Work("42"))
    assert (right.name, right.value, none.value) == ("outcome", 1.0, 0.0)
    assert right.evidence == "reward 1; tests/test.sh ended with status 7"
    assert (tmp_path / "environment/workspace/answer.txt").read_text() == "?", "the workspace stays as it is"


async def test_a_script_finds_pytest_and_the_hidden_tests_win(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    files = {
        "environment/workspace/area.py": "def area(a, b):\n    return a + b\n",
        "environment/workspace/test_area.py": "def test_nothing():\n    pass\n",
        "tests/tree/test_area.py": "from area import area\n\ndef test_area():\n    assert area(3, 4) == 12\n",
    }
    verifier = ScriptVerifier.load(made(tmp_path, PYTEST, files=files), sandboxes, environment=verdict_environment())
    fixed = written("area.py", "def area(a, b):\n    return a * b\n")
    assert [reward.value for reward in await verifier.verify(Work("", (fixed,)))] == [1]
    assert [reward.value for reward in await verifier.verify(Work(""))] == [0]
    forged = (written("test_area.py", "def test_area(): pass\n"), written("conftest.py", "import os; os._exit(0)\n"))
    (reward,) = await verifier.verify(Work("", forged))
    assert reward.value == 0
    assert "2 changes left out: conftest.py (" in reward.evidence


async def test_an_instance_of_swebench_gives_its_oracle_1_and_nothing_0(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    row = {
        "instance_id": "org__shapes-1",
        "repo": "org/shapes",
        "base_commit": "HEAD",
        "problem_statement": "area() adds.",
        "patch": _diff("src/shapes.py", "def area(a, b):", "-    return a + b", "+    return a * b"),
        "test_patch": _diff("tests/test_shapes.py", "def test_area():", "-    assert area(2, 2) == 4", "+    assert area(3, 4) == 12"),
        "FAIL_TO_PASS": ["tests/test_shapes.py::test_area"],
    }
    clone = _committed(
        tmp_path / "clone",
        {
            "src/shapes.py": "def area(a, b):\n    return a + b\n",
            "tests/test_shapes.py": "import sys; sys.path.insert(0, 'src')\nfrom shapes import area\n\n\n"
            "def test_area():\n    assert area(2, 2) == 4\n",
        },
    )
    folder = import_instance(instance_of(row), clone, tmp_path / "task")
    environment = verdict_environment()
    oracle = await oracle_changes(load_code_task(folder), VerdictPlace(sandboxes, environment))
    assert [change.path for change in oracle if change.kind == "file"] == ["src/shapes.py"]
    verifier = ScriptVerifier.load(folder, sandboxes, environment=environment)
    assert [(await verifier.verify(Work("", changes)))[0].value for changes in (oracle, ())] == [1, 0]


def _committed(clone: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (clone / name).parent.mkdir(parents=True)
        (clone / name).write_text(text)
    for arguments in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "base"]):
        subprocess.run(["git", *arguments], cwd=clone, check=True)
    return clone


def _diff(path: str, context: str, before: str, after: str) -> str:
    start = 5 if "test" in path else 1
    return f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -{start},2 +{start},2 @@\n {context}\n{before}\n{after}\n"


async def test_further_rewards_are_told_and_not_added(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    script = """echo '{"reward": 0.5, "style": 1}' > /logs/verifier/reward.json"""
    (reward,) = await ScriptVerifier.load(made(tmp_path, script), sandboxes).verify(Work(""))
    assert (reward.value, reward.evidence.split(";")[0]) == (0.5, "reward 0.5, style 1")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "echo began; exit 3",
            "left neither reward.json nor reward.txt in /logs/verifier, only nothing; it ended with status 3",
        ),
        ("echo nan > /logs/verifier/reward.txt", "must be a finite number"),
        ("echo 2 > /logs/verifier/reward.txt", "an outcome lies in 0..1, tests/test.sh gave 2"),
        ("""echo '{"style": 1}' > /logs/verifier/reward.json""", "names 'style', none of them 'reward'"),
        ("ln -s /etc/passwd /logs/verifier/reward.txt", "left neither"),
        ("mkdir /logs/verifier/reward.txt", "left neither"),
        ("echo 1 > /logs/verifier/reward.txt; sleep 60", "took longer than 1 s; raise verifier.timeout_sec"),
    ],
)
async def test_a_script_that_gives_no_number_in_time_gives_no_verdict(
    sandboxes: IsolatedSandboxes, tmp_path: Path, script: str, words: str
) -> None:
    verifier = ScriptVerifier.load(made(tmp_path, script, f"[verifier]\ntimeout_sec = 1\n{OURS}"), sandboxes)
    with pytest.raises(VerifierError) as caught:
        await verifier.verify(Work(""))
    assert words in str(caught.value)


async def test_what_a_left_process_writes_later_is_not_read(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    script = "echo 0 > /logs/verifier/reward.txt\n(sleep 1; echo '{\"reward\": 1}' > /logs/verifier/reward.json) &\n"
    (reward,) = await ScriptVerifier.load(made(tmp_path, script), sandboxes).verify(Work(""))
    assert reward.value == 0


async def test_the_script_has_the_variables_of_its_task_and_none_of_this_host(
    sandboxes: IsolatedSandboxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARK", "host")
    script = '[ "$MARK" = task ] && [ "$PLAIN" = yes ] && echo 1 > /logs/verifier/reward.txt'
    config = f"[verifier.env]\nMARK = '${{MARK:-task}}'\nPLAIN = 'yes'\n{OURS}"
    (reward,) = await ScriptVerifier.load(made(tmp_path, script, config), sandboxes).verify(Work(""))
    assert reward.value == 1


async def test_the_memory_that_a_task_names_holds(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    script = "python3 -c 'bytearray(2**28)' && echo 1 > /logs/verifier/reward.txt"
    verifier = ScriptVerifier.load(made(tmp_path, script, f"[environment]\nmemory_mb = 64\n{OURS}"), sandboxes)
    with pytest.raises(VerifierError, match="memory|left neither"):
        await verifier.verify(Work(""))


async def test_a_solution_of_another_s_task_may_lie_anywhere_and_one_of_ours_where_it_says(
    sandboxes: IsolatedSandboxes, tmp_path: Path
) -> None:
    script = "test -e /workspace/new/notes.txt && echo 1 > /logs/verifier/reward.txt || echo 0 > /logs/verifier/reward.txt"
    work = Work("", (written("new/notes.txt", "x"),))
    workspace = tmp_path / "empty"
    workspace.mkdir()
    image = "[environment]\ndocker_image = 'x'\n"
    theirs = ScriptVerifier.load(made(tmp_path / "theirs", script, image), sandboxes, workspace=workspace)
    ours = ScriptVerifier.load(made(tmp_path / "ours", script), sandboxes)
    named = ScriptVerifier.load(tmp_path / "ours", sandboxes, oracle_paths={"new/notes.txt"})
    assert [(await verifier.verify(work))[0].value for verifier in (theirs, ours, named)] == [1, 0, 1]


async def test_a_task_that_asks_for_what_cannot_be_given_is_refused(sandboxes: IsolatedSandboxes, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="environment.gpus"):
        ScriptVerifier.load(made(tmp_path / "one", "", f"[environment]\ngpus = 1\n{OURS}"), sandboxes)
    with pytest.raises(TaskError, match="its files are in its image alone"):
        ScriptVerifier.load(made(tmp_path / "two", "", "[environment]\ndocker_image = 'x'\n"), sandboxes)
