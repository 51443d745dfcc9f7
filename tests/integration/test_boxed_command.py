"""Programs as agents in sandboxes: what they are told, the doors they have, and what becomes of limits, failures and cancellation."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from trunkline.agents.boxed_command import CommandAgent
from trunkline.agents.launch import PlainCommand
from trunkline.agents.program import MAX_ANSWER_BYTES
from trunkline.asgi import serve_uds
from trunkline.errors import AgentError, ConfigError, LimitExceeded
from trunkline.protocols import Assignment
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset
from trunkline.types import Message

TASKSET = LookupTaskset(LookupConfig(kinds={"one_hop.area": 1}, invented_share=0))
TASK = TASKSET.task("heldout", 0)
SECRET = "key-of-this-attempt-7f3a"
ENOUGH_S = 120.0
Make = Callable[..., CommandAgent]


@asynccontextmanager
async def agents(folder: Path, config: SandboxConfig = SandboxConfig()) -> AsyncIterator[Make]:
    """Makes agents that run Python code; behind the model's door is a server that says who asked for what."""

    async def says(request):
        return JSONResponse({"path": request.url.path, "key": request.headers.get("authorization")})

    app = Starlette(routes=[Route("/{rest:path}", says, methods=["GET", "POST"])])
    door = await serve_uds(app, folder / "model.sock", mode=0o666)
    try:
        async with IsolatedSandboxes.open(config) as sandboxes:
            empty = await sandboxes.prepare(None)

            def make(code: str, *arguments: str) -> CommandAgent:
                command = PlainCommand((sys.executable, "-c", textwrap.dedent(code), *arguments))
                return CommandAgent(command, sandboxes, empty, gateway=folder / "model.sock")

            yield make
            assert not sandboxes.alive, "each attempt's sandbox is gone with it"
    finally:
        await door.stop()


def assignment() -> Assignment:
    return Assignment(TASK.prompt, TASKSET.open(TASK).tools, f"http://127.0.0.1:9/s/{SECRET}/v1", SECRET, "tiny")


def within(folder: Path, work: Callable[[Make], Awaitable[None]], config: SandboxConfig = SandboxConfig()) -> None:
    async def main() -> None:
        async with agents(folder, config) as make:
            await asyncio.wait_for(work(make), ENOUGH_S)

    asyncio.run(main())


def test_a_program_reaches_the_model_and_its_tools_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("HOST_SECRET", "not for agents")
    code = """
        import json, os, socket, sys, urllib.request
        def ask(url, body=None, key=""):
            request = urllib.request.Request(url, body, {"authorization": f"Bearer {key}"})
            return json.load(urllib.request.urlopen(request, timeout=20))
        task = json.load(open(os.environ["TRUNKLINE_TASK"]))
        model = ask(os.environ["OPENAI_BASE_URL"] + "/chat/completions", b"{}", os.environ["OPENAI_API_KEY"])
        area = ask(task["tools_url"] + "/area", json.dumps({"country": sys.argv[1]}).encode(), task["tools_key"])
        refused = []
        for address in (("127.0.0.1", 22), ("127.0.0.1", 8702), ("10.0.0.1", 80), ("192.0.2.1", 443)):
            try:
                socket.create_connection(address, timeout=5)
            except OSError as error:
                refused.append(type(error).__name__)
        print(json.dumps({"model": model, "area": area["result"], "refused": refused, "names": sorted(os.environ)}))
    """

    async def work(make):
        given = assignment()
        said = json.loads(await make(code, "Peru").run(given))
        assert said["model"] == {"path": f"/s/{SECRET}/v1/chat/completions", "key": f"Bearer {SECRET}"}
        assert said["area"] == await TASKSET.open(TASK).tools.call("area", '{"country": "Peru"}')
        assert len(said["refused"]) == 4
        assert "HOST_SECRET" not in said["names"] and "OPENAI_MODEL" in said["names"]
        assert [act.op for act in given.acts] == ["tool", "create", "write", "run", "destroy"]
        assert given.acts[0].detail.startswith("area(") and given.acts[3].status == 0

    within(tmp_path, work)


def test_an_mcp_client_inside_lists_and_calls_the_lookup_tools(tmp_path):
    code = """
        import asyncio, json, os
        from mcp.client.streamable_http import streamable_http_client
        from mcp.client.session import ClientSession
        import httpx2
        async def main():
            task = json.load(open(os.environ["TRUNKLINE_TASK"]))
            http = httpx2.AsyncClient(timeout=90, headers={"authorization": "Bearer " + task["tools_key"]})
            async with streamable_http_client(task["mcp_url"], http_client=http) as streams:
                async with ClientSession(*streams[:2]) as session:
                    await session.initialize()
                    names = [tool.name for tool in (await session.list_tools()).tools]
                    result = await session.call_tool("capital", {"country": "Peru"})
                    print(json.dumps([names, result.content[0].text]))
        asyncio.run(main())
    """

    async def work(make):
        given = assignment()
        names, capital = json.loads(await make(code).run(given))
        assert names == ["population", "capital", "area"]
        assert capital == await TASKSET.open(TASK).tools.call("capital", '{"country": "Peru"}')
        assert given.acts[0].op == "tool" and " by mcp -> " in given.acts[0].detail

    within(tmp_path, work)


def test_a_failed_program_is_an_agent_error_with_the_end_of_its_stderr_and_without_secrets(tmp_path):
    async def work(make):
        with pytest.raises(AgentError, match="exit status 3") as caught:
            await make("import os, sys; sys.stderr.write('x' * 9000 + os.environ['OPENAI_API_KEY']); sys.exit(3)").run(assignment())
        assert str(caught.value).endswith("***") and SECRET not in str(caught.value) and len(str(caught.value)) < 5000
        with pytest.raises(AgentError, match="killed by SIGABRT"):
            await make("import os; os.abort()").run(assignment())

    within(tmp_path, work)


def test_an_endless_answer_is_cut_and_says_so(tmp_path):
    async def work(make):
        said = await make(f"print('y' * {MAX_ANSWER_BYTES * 40})").run(assignment())
        assert said.startswith("y" * MAX_ANSWER_BYTES + "\n[cut here: ") and len(said) < MAX_ANSWER_BYTES + 200

    within(tmp_path, work)


def test_a_program_that_is_not_visible_inside_is_the_users_mistake(tmp_path):
    async def work(make):
        agent = make("")
        agent._launcher = PlainCommand(("/srv/no/such/program",))
        with pytest.raises(ConfigError, match="sandbox.toolchain"):
            await agent.run(assignment())

    within(tmp_path, work)


def test_a_spent_limit_ends_the_attempt_as_the_agents_own_doing(tmp_path):
    async def work(make):
        given = assignment()
        with pytest.raises(LimitExceeded, match="it may write 8,388,608"):
            await make("import time\nfor n in range(9): open(f'f{n}', 'wb').write(b'x' * 2**20)\ntime.sleep(60)").run(given)
        assert [act.op for act in given.acts][-3:] == ["limit", "run", "destroy"]

    within(tmp_path, work, SandboxConfig(disk_bytes=2**23))


def test_a_cancelled_attempt_leaves_no_sandbox(tmp_path):
    async def work(make):
        given = assignment()
        working = asyncio.create_task(make("import time; time.sleep(600)").run(given))
        await asyncio.sleep(1.0)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert given.acts[-1].op == "destroy"

    within(tmp_path, work)


def test_a_long_prompt_is_in_the_task_file_alone(tmp_path):
    code = """
        import json, os
        task = json.load(open(os.environ["TRUNKLINE_TASK"]))
        print(os.environ.get("TRUNKLINE_PROMPT"), len(task["messages"][0]["content"]))
    """

    async def work(make):
        assert await make(code).run(replace(assignment(), prompt=(Message("user", "é" * 100_000),))) == "None 100000"

    within(tmp_path, work)
