"""Our own loop on a task's directory: what its tools say, what an attempt leaves, and what becomes of its sandbox."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.software_task import BUG, CURE, write_task
from trunkline.agents.loop_settings import LoopSettings
from trunkline.agents.tool_loop import ToolLoop
from trunkline.agents.workspace_config import WorkspaceConfig
from trunkline.agents.workspace_loop import WorkspaceLoop
from trunkline.asgi import serve_port
from trunkline.errors import LimitExceeded
from trunkline.protocols import Assignment
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset
from trunkline.tasks.swe.surroundings import surroundings_of
from trunkline.tasks.swe.task import CodeTask
from trunkline.types import Command, Message

pytestmark = pytest.mark.anyio
LOOKUP = LookupTaskset(LookupConfig())
FILE = "shop/__init__.py"
ALL = ("read", "read_lines", "replace", "write", "run_tests", "run_test_file")
Call = tuple[str, dict[str, object]]


@dataclass
class Scene:
    """A model that says what a test lets it say, turn by turn, and is told what the tools said."""

    url: str = ""
    turns: list[list[Call]] = field(default_factory=list)
    """Each turn's calls; after the last one it answers."""
    asked: list[dict] = field(default_factory=list)
    is_asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request):
        self.asked.append(await request.json())
        self.is_asked.set()
        calls = self.turns.pop(0) if self.turns else []
        wire = [
            {"id": f"c{place}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for place, (name, arguments) in enumerate(calls)
        ]
        return JSONResponse({"choices": [{"message": {"role": "assistant", "content": "done", "tool_calls": wire}}]})

    @property
    def results(self) -> list[str]:
        return [message["content"] for message in self.asked[-1]["messages"] if message["role"] == "tool"]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    serving = await serve_port(Starlette(routes=[Route("/{rest:path}", made.answer, methods=["POST"])]), port=0)
    made.url = f"http://127.0.0.1:{serving.port}/v1"
    try:
        yield made
    finally:
        await serving.stop()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> CodeTask:
    return write_task(tmp_path_factory.mktemp("task") / "coupon")


async def given(scene: Scene, task: CodeTask | None) -> Assignment:
    tools = LOOKUP.open(LOOKUP.task("heldout", 0)).tools
    empty = Assignment((Message("user", "Mend it"),), tools, scene.url, "key", "tiny")
    return empty if task is None else replace(empty, workspace=task.workspace, surroundings=await surroundings_of(task, None))


async def work(scene: Scene, sandboxes: IsolatedSandboxes, assignment: Assignment, *turns: list[Call], **knobs: object) -> str:
    scene.turns += turns
    agent = WorkspaceLoop(ToolLoop(None, LoopSettings(max_turns=9)), WorkspaceConfig.model_validate({"tools": ALL} | knobs), sandboxes)
    try:
        return await agent.run(assignment)
    finally:
        await agent.discard()
        assert not sandboxes.alive, "an attempt's sandbox is gone with it"


async def test_a_fault_is_read_replaced_and_tested_and_the_change_is_handed_over(
    scene: Scene, sandboxes: IsolatedSandboxes, task: CodeTask
) -> None:
    assignment = await given(scene, task)
    turns = [[("read", {"path": FILE})], [("replace", {"path": FILE, "old": BUG, "new": CURE})], [("run_tests", {})]]
    assert await work(scene, sandboxes, assignment, *turns, test_report="word") == "done"
    assert scene.results == [(task.workspace / FILE).read_text(), "ok", "passed"]
    (change,) = [change for change in assignment.changes if change.kind == "file"]
    assert (change.path, CURE.encode() in change.content) == (FILE, True)
    assert [act.op for act in assignment.acts] == ["create", "write", "run", "diff", "destroy"]


async def test_the_model_is_offered_the_tasks_tools_and_those_of_the_workspace_in_the_recipes_order(
    scene: Scene, sandboxes: IsolatedSandboxes, task: CodeTask
) -> None:
    assignment = await given(scene, task)
    await work(scene, sandboxes, assignment, tools=("run_tests", "read"))
    offered = [tool["function"]["name"] for tool in scene.asked[0]["tools"]]
    assert offered == [*(spec.name for spec in assignment.tools.specs), "run_tests", "read"]


async def test_an_attempt_that_needs_no_sandbox_has_none(scene: Scene, sandboxes: IsolatedSandboxes, task: CodeTask) -> None:
    assignment = await given(scene, task)
    await work(scene, sandboxes, assignment)
    assert (assignment.acts, assignment.changes) == ([], [])


async def test_an_attempt_that_only_edits_has_no_sandbox_and_hands_over_its_edits(
    scene: Scene, sandboxes: IsolatedSandboxes, task: CodeTask
) -> None:
    assignment = await given(scene, task)
    emptied = ("write", {"path": "tests/test_shop.py", "text": ""})
    await work(scene, sandboxes, assignment, [("replace", {"path": FILE, "old": BUG, "new": CURE}), ("read", {"path": FILE}), emptied])
    assert CURE in scene.results[1] and assignment.acts == []
    assert [(change.path, change.kind) for change in assignment.changes] == [(FILE, "file"), ("tests/test_shop.py", "file")]


async def test_remembered_tests_run_once_for_the_same_edits_and_again_for_others(
    scene: Scene, sandboxes: IsolatedSandboxes, task: CodeTask
) -> None:
    config = WorkspaceConfig(tools=("replace", "run_tests"), test_report="word", remember_tests=True)
    agent = WorkspaceLoop(ToolLoop(None, LoopSettings(max_turns=9)), config, sandboxes)
    seen = []
    for new in (CURE, CURE, "return 1 / 0"):
        assignment = await given(scene, task)
        scene.turns += [[("replace", {"path": FILE, "old": BUG, "new": new})], [("run_tests", {})]]
        await agent.run(assignment)
        seen.append(([act.op for act in assignment.acts].count("create"), scene.results))
        assert [change.path for change in assignment.changes if change.kind == "file"] == [FILE]
    await agent.discard()
    assert seen == [(1, ["ok", "passed"]), (0, ["ok", "passed"]), (1, ["ok", "failed"])]


async def test_runs_that_share_a_file_run_the_same_tests_of_the_same_workspace_once(
    scene: Scene, sandboxes: IsolatedSandboxes, task: CodeTask, tmp_path: Path
) -> None:
    config = WorkspaceConfig(tools=("replace", "run_tests"), test_report="word", remember_tests=tmp_path / "tests.sqlite")
    seen = []
    for extra in ("", "", "x = 1\n"):
        if extra:
            (task.workspace / "extra.py").write_text(extra)
        agent = WorkspaceLoop(ToolLoop(None, LoopSettings(max_turns=9)), config, sandboxes)
        assignment = await given(scene, task)
        scene.turns += [[("replace", {"path": FILE, "old": BUG, "new": CURE})], [("run_tests", {})]]
        await agent.run(assignment)
        await agent.discard()
        seen.append(([act.op for act in assignment.acts].count("create"), scene.results))
    assert seen == [(1, ["ok", "passed"]), (0, ["ok", "passed"]), (1, ["ok", "passed"])]


async def test_a_path_that_leads_out_is_looked_for_inside_the_sandbox_alone(
    scene: Scene, sandboxes: IsolatedSandboxes, task: CodeTask
) -> None:
    paths = ("../../task.toml", str(task.folder / "task.toml"), "shop/../../../task.toml")
    await work(scene, sandboxes, await given(scene, task), [("read", {"path": path}) for path in paths])
    assert scene.results == ["error: no such file"] * 3


async def test_without_a_workspace_only_the_tasks_tools_are_offered(scene: Scene, sandboxes: IsolatedSandboxes) -> None:
    assignment = await given(scene, None)
    await work(scene, sandboxes, assignment)
    assert {tool["function"]["name"] for tool in scene.asked[0]["tools"]} == {spec.name for spec in assignment.tools.specs}


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("read", {"path": "nowhere.py"}, "error: no such file"),
        ("read", {"path": "shop"}, "error: no such file"),
        ("read", {}, "error: bad arguments"),
        ("read", {"path": FILE, "more": 1}, "error: bad arguments"),
        ("read_lines", {"path": FILE, "first": "1", "last": 2}, "error: bad arguments"),
        ("read_lines", {"path": FILE, "first": True, "last": 2}, "error: bad arguments"),
        ("read_lines", {"path": FILE, "first": -5, "last": 1}, '"""Prices, in cents."""\n'),
        ("replace", {"path": FILE, "old": "no such text", "new": ""}, "error: old is not in the file"),
        ("replace", {"path": FILE, "old": "", "new": "x"}, "error: old is not in the file"),
        ("replace", {"path": FILE, "old": "return", "new": "x"}, "error: old is more than once in the file"),
        ("run_test_file", {"path": "-x"}, "error: no such file"),
        ("run_test_file", {"path": "tests/test_shop.py"}, "passed"),
        ("run_test_file", {"path": "tests/none.py"}, "error"),
        ("write", {"path": "new/file.txt", "text": "x"}, "ok"),
    ],
)
async def test_what_a_call_cannot_do_it_says(
    scene: Scene, sandboxes: IsolatedSandboxes, task: CodeTask, name: str, arguments: dict[str, object], said: str
) -> None:
    await work(scene, sandboxes, await given(scene, task), [(name, arguments)], test_report="word")
    assert scene.results == [said]


async def test_lines_that_reading_numbers_are_replaced_by_their_numbers(scene: Scene, sandboxes: IsolatedSandboxes, task: CodeTask) -> None:
    assignment, text = await given(scene, task), "one\ntwo\r\nthree"
    turns = [
        [("write", {"path": "a.txt", "text": text})],
        [("replace", {"path": "a.txt", "line": 2, "new": "  2"})],
        [("replace", {"path": "a.txt", "line": line, "new": "x"}) for line in (0, 4)],
        [("replace", {"path": "a.txt", "line": 3, "new": "3"})],
        [("read", {"path": "a.txt"}), ("read_lines", {"path": "a.txt", "first": 2, "last": 2})],
    ]
    await work(scene, sandboxes, assignment, *turns, edit_by="line")
    assert scene.results == ["ok", "ok", *["error: no such line"] * 2, "ok", "1 one\n2   2\r\n3 3", "2   2\r\n"]


async def test_the_output_of_tests_is_the_same_each_time_and_ends_with_a_word(
    scene: Scene, sandboxes: IsolatedSandboxes, task: CodeTask
) -> None:
    await work(scene, sandboxes, await given(scene, task), [("run_tests", {})], [("run_tests", {})])
    first, second = scene.results
    assert first == second and first.endswith("2 passed in some time\npassed")


async def test_failing_and_endless_tests_are_told_apart(scene: Scene, sandboxes: IsolatedSandboxes, task: CodeTask) -> None:
    failing = {"path": "tests/test_shop.py", "text": "def test_it():\n    assert 1 == 2\n"}
    endless = {"path": "tests/test_shop.py", "text": "def test_it():\n    while True: pass\n"}
    turns = [[("write", failing)], [("run_tests", {})], [("write", endless)], [("run_tests", {})]]
    await work(scene, sandboxes, await given(scene, task), *turns, test_report="word", test_timeout_s=3.0)
    assert scene.results == ["ok", "failed", "ok", "out of time"]


async def test_a_long_result_loses_its_middle(scene: Scene, sandboxes: IsolatedSandboxes, task: CodeTask) -> None:
    text = "a" * 100 + "b" * 1000 + "c" * 100
    turns = [[("write", {"path": "long.txt", "text": text})], [("read", {"path": "long.txt"})]]
    await work(scene, sandboxes, await given(scene, task), *turns, max_result=200)
    assert scene.results[1] == "a" * 100 + "\n[1000 characters left out]\n" + "c" * 100


async def test_a_cancelled_attempt_hands_over_what_it_changed(scene: Scene, sandboxes: IsolatedSandboxes, task: CodeTask) -> None:
    assignment = await given(scene, task)
    endless = {"path": "tests/test_shop.py", "text": "import time\ntime.sleep(600)\n"}
    working = asyncio.create_task(work(scene, sandboxes, assignment, [("write", endless)], [("run_tests", {})]))
    while len(scene.asked) < 2:
        scene.is_asked.clear()
        await asyncio.wait_for(scene.is_asked.wait(), 60)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert [change.path for change in assignment.changes if change.kind == "file"] == ["tests/test_shop.py"]


async def test_a_spent_limit_ends_the_attempt_as_its_own_doing(scene: Scene, task: CodeTask) -> None:
    text = "import time\nfor n in range(9):\n    open(f'/tmp/{n}', 'wb').write(b'x' * 2**20)\ntime.sleep(600)\n"
    fill = {"path": "tests/test_shop.py", "text": text}
    async with IsolatedSandboxes.open(SandboxConfig(disk_bytes=2**22)) as small:
        with pytest.raises(LimitExceeded, match="it may write 4,194,304"):
            await work(scene, small, await given(scene, task), [("write", fill)], [("run_tests", {})])


async def test_sandboxes_show_what_surrounds_an_attempt_and_set_its_variables(
    sandboxes: IsolatedSandboxes, task: CodeTask, tmp_path: Path
) -> None:
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "note").write_text("read me")
    surroundings = replace(await surroundings_of(task, None), shown=((tmp_path / "shown", "/srv/notes"),), variables={"COLOUR": "violet"})
    box = await sandboxes.create(await sandboxes.prepare(task.workspace), surroundings=surroundings)
    try:
        ran = await box.run(Command.shell("cat /srv/notes/note; echo $COLOUR; echo x > /srv/notes/note || echo read-only", timeout_s=20))
    finally:
        await box.destroy()
    assert ran.stdout.decode().split("\n") == ["read meviolet", "read-only", ""]
