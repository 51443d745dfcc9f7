"""Programs that work on a task's directory: where they start, what they see, and how what they left is handed over however they end."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.integration.sandbox_scene import open_folder
from tests.software_task import BUG, CURE, write_task
from trunkline.agents import handover
from trunkline.agents.boxed_command import CommandAgent
from trunkline.agents.launch import PlainCommand
from trunkline.agents.loop_settings import LoopSettings
from trunkline.agents.tool_loop import ToolLoop
from trunkline.agents.unsafe_command import UnsafeCommandAgent
from trunkline.asgi import serve_uds
from trunkline.errors import AgentError, ConfigError, LimitExceeded, SandboxError
from trunkline.protocols import Agent, Assignment
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset
from trunkline.tasks.swe.surroundings import surroundings_of
from trunkline.tasks.swe.task import CodeTask
from trunkline.types import Message

pytestmark = pytest.mark.anyio
EXAMPLE = Path(__file__).parents[2] / "examples" / "shell_agent.py"
LOOKUP = LookupTaskset(LookupConfig())
SAYS_DONE = """
import os, urllib.request
def done(): urllib.request.urlopen(os.environ["OPENAI_BASE_URL"] + "/done", timeout=20)
"""


@dataclass
class Scene:
    """Programs as agents in real sandboxes; behind the model's door is what a test lets the model say."""

    sandboxes: IsolatedSandboxes
    door: Path
    empty: object
    made: list[CommandAgent] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    says: list[str] = field(default_factory=list)
    """What the model answers, one after the other."""
    asked: list[bytes] = field(default_factory=list)

    def agent(self, code: str, sandboxes: IsolatedSandboxes | None = None) -> CommandAgent:
        return self.program(SAYS_DONE + textwrap.dedent(code), sandboxes)

    def program(self, source: str, sandboxes: IsolatedSandboxes | None = None) -> CommandAgent:
        command = PlainCommand((sys.executable, "-c", source))
        self.made.append(CommandAgent(command, sandboxes or self.sandboxes, self.empty, gateway=self.door))
        return self.made[-1]


@pytest.fixture
async def scene(sandboxes: IsolatedSandboxes) -> AsyncIterator[Scene]:
    with open_folder() as folder:
        made = Scene(sandboxes, folder / "model.sock", await sandboxes.prepare(None))

        async def answer(request):
            if request.url.path.endswith("/done"):
                made.done.set()
                return JSONResponse({})
            made.asked.append(await request.body())
            return JSONResponse({"choices": [{"message": {"content": made.says.pop(0)}}]})

        serving = await serve_uds(Starlette(routes=[Route("/{rest:path}", answer, methods=["GET", "POST"])]), made.door, mode=0o666)
        try:
            yield made
            assert not sandboxes.alive, "each attempt's sandbox is gone with it"
        finally:
            await serving.stop()
            for agent in made.made:
                await agent.discard()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> CodeTask:
    return write_task(tmp_path_factory.mktemp("task") / "coupon")


def given(task: CodeTask | None) -> Assignment:
    tools = LOOKUP.open(LOOKUP.task("heldout", 0)).tools
    workspace = task.workspace if task else None
    return Assignment((Message("user", "Mend it"),), tools, "http://127.0.0.1:9/s/key/v1", "key", "tiny", workspace=workspace)


def told(assignment: Assignment) -> dict[str, bytes]:
    return {change.path: change.content for change in assignment.changes if change.kind == "file"}


async def test_attempts_start_with_the_tasks_directory_which_is_prepared_once_for_all_of_them(scene: Scene, task: CodeTask) -> None:
    agent = scene.agent("import os\nopen('mine', 'w').write(os.environ['TRUNKLINE_PROMPT'])\nprint(open('shop/__init__.py').read())")
    assignments = [given(task) for _ in range(3)]
    answers = await asyncio.gather(*map(agent.run, assignments))
    assert set(answers) == {(task.workspace / "shop" / "__init__.py").read_text().strip()}
    assert [told(one) for one in assignments] == [{"mine": b"Mend it"}] * 3
    folders = scene.sandboxes.host.state / "workspaces"
    assert len([path for path in folders.iterdir() if (path / "shop").exists()]) == 1
    await agent.discard()
    assert not [path for path in folders.iterdir() if (path / "shop").exists()]


async def test_without_a_workspace_an_attempt_starts_empty_and_nothing_is_compared(scene: Scene) -> None:
    assignment = given(None)
    assert await scene.agent("import os\nopen('mine', 'w')\nprint(os.listdir())").run(assignment) == "['mine']"
    assert assignment.changes == [] and "diff" not in {act.op for act in assignment.acts}


async def test_what_a_failed_program_left_is_told_beside_its_error(scene: Scene, task: CodeTask) -> None:
    assignment = given(task)
    with pytest.raises(AgentError, match="exit status 3"):
        await scene.agent("open('half', 'w').write('done')\nraise SystemExit(3)").run(assignment)
    assert told(assignment) == {"half": b"done"}


async def test_what_a_cancelled_program_left_is_told_though_a_child_of_it_writes_on(scene: Scene, task: CodeTask) -> None:
    assignment = given(task)
    code = """
        import time
        open("fixed", "w").write("yes")
        if os.fork() == 0:
            os.setsid()
            while True:
                open("noise", "w").write("x")
        done()
        time.sleep(600)
    """
    working = asyncio.create_task(scene.agent(code).run(assignment))
    await asyncio.wait_for(scene.done.wait(), 60)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert told(assignment)["fixed"] == b"yes"
    assert [act.op for act in assignment.acts][-2:] == ["diff", "destroy"]


async def test_what_was_written_before_a_limit_was_spent_is_told(scene: Scene, task: CodeTask) -> None:
    assignment = given(task)
    code = """
        import time
        open("fixed", "w").write("yes")
        for number in range(9):
            open(f"/tmp/{number}", "wb").write(b"x" * 2**20)
        time.sleep(600)
    """
    async with IsolatedSandboxes.open(SandboxConfig(disk_bytes=2**22)) as small:
        with pytest.raises(LimitExceeded, match="it may write 4,194,304"):
            await scene.agent(code, small).run(assignment)
        await scene.made[-1].discard()
    assert told(assignment) == {"fixed": b"yes"}


async def test_more_changes_than_are_read_end_the_attempt_as_its_own_doing_and_the_record_says_so(
    scene: Scene, task: CodeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "MAX_CHANGES_BYTES", 2**16)
    assignment = given(task)
    with pytest.raises(LimitExceeded, match="more than 65,536 bytes of changes"):
        await scene.agent("open('big', 'wb').write(b'x' * 2**17)").run(assignment)
    assert assignment.changes == []
    assert (assignment.acts[-1].op, assignment.acts[-1].detail[:30]) == ("lost", "the agent left more than 65,53")


async def test_a_workspace_that_cannot_be_read_in_time_gives_no_verdict_even_if_the_attempt_was_cancelled(
    scene: Scene, task: CodeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "READ_TIMEOUT_S", 0.0)
    working = asyncio.create_task(scene.agent("import time\ndone()\ntime.sleep(600)").run(given(task)))
    await asyncio.wait_for(scene.done.wait(), 60)
    working.cancel()
    with pytest.raises(SandboxError, match=r"nothing can be read of the workspace: it took longer than 0 s"):
        await working


async def test_an_agent_runs_the_tasks_visible_tests_with_pytest_and_mends_it(scene: Scene, task: CodeTask) -> None:
    code = f"""
        import subprocess
        source = open("shop/__init__.py").read().replace("return sum(prices) - coupon", {CURE!r})
        open("shop/__init__.py", "w").write(source)
        ran = subprocess.run(["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider"], capture_output=True, text=True)
        print(ran.returncode, ran.stdout.splitlines()[-1])
    """
    assignment = given(task)
    assert (await scene.agent(code).run(assignment)).startswith("0 2 passed")
    assert CURE.encode() in told(assignment)["shop/__init__.py"]


async def test_the_shell_agent_of_the_examples_runs_what_the_model_says_and_shows_it_the_output(scene: Scene, task: CodeTask) -> None:
    assignment = given(task)
    scene.says += [f"First:\n```sh\nsed -i 's|{BUG}|{CURE}|' shop/__init__.py && python3 -m pytest -q | tail -1\n```", "It is DONE."]
    assert await scene.program(EXAMPLE.read_text()).run(assignment) == "DONE"
    assert CURE.encode() in told(assignment)["shop/__init__.py"]
    assert b"2 passed" in scene.asked[1] and b"[exit status 0]" in scene.asked[1]


async def test_a_program_is_told_the_command_that_runs_the_tests_under_the_tasks_own_environment(scene: Scene, task: CodeTask) -> None:
    code = """
        import subprocess
        ran = subprocess.run(["sh", "-c", os.environ["TRUNKLINE_TEST_COMMAND"]], capture_output=True, text=True)
        print(ran.returncode, ran.stdout.splitlines()[-1], os.environ.get("PYTHONPATH"))
    """
    assignment = replace(given(task), surroundings=await surroundings_of(task, None))
    answer = await scene.agent(code).run(assignment)
    assert answer.startswith("0 2 passed") and answer.endswith("None")


async def test_an_agent_sees_neither_solution_nor_hidden_tests(scene: Scene, task: CodeTask) -> None:
    code = """
        found = []
        for folder, below, files in os.walk("/"):
            if folder == "/":
                below[:] = [name for name in below if name not in ("proc", "usr")]
            found += [f"{folder}/{name}" for name in (*below, *files)]
        print([path for path in found if path.endswith(("oracle.patch", "solve.sh", "test_coupon.py", "heldout.py"))])
        print(sorted(path for path in found if path.endswith("test_shop.py")))
    """
    hidden, visible = (await scene.agent(code).run(given(task))).splitlines()
    assert hidden == "[]"
    assert visible == "['/workspace/tests/test_shop.py']"


@pytest.mark.parametrize("agent", [ToolLoop(None, LoopSettings(max_turns=1)), UnsafeCommandAgent(("true",))])
async def test_an_agent_in_no_sandbox_refuses_a_workspace_and_says_what_to_set(agent: Agent, task: CodeTask) -> None:
    with pytest.raises(ConfigError, match=r"set agent.command or agent.adapter, and sandbox.kind"):
        await agent.run(given(task))
