"""An attempt's tools as programs reach them: plain HTTP and MCP's own client, on a port and on a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import time

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from trunkline.agents.tool_server import MAX_ARGUMENTS_BYTES, ToolDoor, serve_tools
from trunkline.errors import ConfigError
from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset
from trunkline.types import ToolSpec, ToolUse, Work

ECHO = ToolSpec("echo", "Say it back", {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]})
MODES = ("legacy", "2026-07-28")  # with the handshake of 2025's protocols, and without
HEADERS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


class Echo:
    """Says back what it was called with; `slow` takes forever and says how it ended."""

    specs = (ECHO,)

    def __init__(self):
        self.running, self.num_cut_off = 0, 0

    async def call(self, name, arguments):
        if name == "slow":
            self.running += 1
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                self.num_cut_off += 1
                raise
        return f"{name}: {arguments}"


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario(), 60))


def plain(door, *, key=None, socket=None):
    """A client of plain HTTP."""
    transport = httpx.AsyncHTTPTransport(uds=str(socket)) if socket else None
    return httpx.AsyncClient(headers={"authorization": f"Bearer {key or door.key}"}, transport=transport, trust_env=False)


@contextlib.asynccontextmanager
async def mcp(door, *, mode="legacy", key=None, socket=None, on_status=lambda status: None):
    """The official library's client."""

    async def answered(response):
        on_status(response.status_code)

    transport = httpx2.AsyncHTTPTransport(uds=str(socket)) if socket else None
    headers, hooks = {"authorization": f"Bearer {key or door.key}"}, {"response": [answered]}
    async with (
        httpx2.AsyncClient(headers=headers, transport=transport, trust_env=False, event_hooks=hooks) as http,
        Client(streamable_http_client(door.mcp_url, http_client=http), mode=mode) as client,
    ):
        yield client


def mcp_call(name, **params):
    """A call as the protocol of 2025 writes it."""
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, **params}}


async def said(http, door, **call):
    """What a call written by hand is answered over MCP."""
    answer = (await http.post(door.mcp_url, json=mcp_call(**call), headers=HEADERS)).json()
    return answer["result"]["content"][0]["text"]


async def refuses_connections(door):
    try:
        async with plain(door) as http:
            await http.get(door.url)
    except httpx.ConnectError:
        return True
    return False


def test_plain_http_lists_calls_and_refuses_other_keys_and_large_bodies():
    async def scenario():
        async with serve_tools(Echo()) as door, plain(door) as http:
            listed = (await http.get(door.url)).json()
            assert listed["tools"] == [
                {"type": "function", "function": {"name": "echo", "description": "Say it back", "parameters": ECHO.parameters}}
            ]
            assert (await http.post(f"{door.url}/no%2Fsuch", content=b"not JSON")).json() == {"result": "no/such: not JSON"}
            assert (await http.post(f"{door.url}/echo", content=b"\xff")).json() == {"result": "echo: \ufffd"}
            assert (await http.post(f"{door.url}/echo", content=b"x" * (MAX_ARGUMENTS_BYTES + 1))).status_code == 413
            for path in ("/tools/echo", "/elsewhere", "/mcp"):
                assert (await http.get(door.base_url + path)).status_code in (404, 405)
            for value in (b"Bearer wrong", b"Bearer \xc3\xa9", b"Bearer", b"", door.key[:-1].encode()):
                for method, url in (("GET", door.url), ("POST", f"{door.url}/echo"), ("POST", door.mcp_url), ("GET", door.base_url)):
                    refused = await http.request(method, url, headers={b"authorization": value})
                    assert refused.status_code == 401 and "tools_key" in refused.json()["error"]
            del http.headers["authorization"]
            assert (await http.get(door.url)).status_code == 401
        assert await refuses_connections(door)

    run(scenario)


@pytest.mark.parametrize("mode", [*MODES, "auto"])
def test_the_official_mcp_client_lists_and_calls(mode):
    async def scenario():
        async with serve_tools(Echo()) as door, mcp(door, mode=mode) as client:
            (tool,) = (await client.list_tools()).tools
            assert (tool.name, tool.description, tool.input_schema) == (ECHO.name, ECHO.description, ECHO.parameters)
            result = await client.call_tool("echo", {"text": "Côte d'Ivoire"})
            assert [block.text for block in result.content] == ['echo: {"text": "Côte d\'Ivoire"}'] and not result.is_error

    run(scenario)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_wrong_with_an_mcp_call_the_tool_says(mode):
    async def scenario():
        async with serve_tools(Echo()) as door, mcp(door, mode=mode) as client:
            for arguments, text in (
                ({"text": 7}, '{"text": 7}'),
                ({}, "{}"),
                (None, "{}"),
                ({"b": 1, "a": [None]}, '{"b": 1, "a": [null]}'),
            ):
                assert (await client.call_tool("echo", arguments)).content[0].text == f"echo: {text}"
            assert (await client.call_tool("no such", {"x": 1})).content[0].text == 'no such: {"x": 1}'

    run(scenario)


def test_mcp_arguments_that_are_no_object_reach_the_tool():
    async def scenario():
        async with serve_tools(Echo()) as door, plain(door) as http:
            for arguments, text in (("not JSON", '"not JSON"'), ([1, 2], "[1, 2]"), (None, "null"), (7, "7")):
                assert await said(http, door, name="echo", arguments=arguments) == f"echo: {text}"
            too_large = mcp_call("echo", arguments={"text": "x" * MAX_ARGUMENTS_BYTES})
            assert (await http.post(door.mcp_url, json=too_large, headers=HEADERS)).status_code == 413

    run(scenario)


def test_half_a_surrogate_pair_is_answered_on_both_wires():
    class Quoting(Echo):
        async def call(self, name, arguments):
            return json.loads(arguments)["text"]

    async def scenario():
        async with serve_tools(Quoting()) as door, plain(door) as http:
            answered = await http.post(f"{door.url}/echo", content=rb'{"text": "\ud83d"}')
            assert json.loads(answered.content) == {"result": "\ud83d"}
            quoted = Quoting()
            quoted.call = lambda name, arguments: asyncio.sleep(0, "\ud83d")
            async with serve_tools(quoted) as other, plain(other) as http_of_other:
                assert await said(http_of_other, other, name="echo") == "?"

    run(scenario)


@pytest.mark.parametrize("mode", MODES)
def test_another_attempts_key_opens_no_mcp(mode):
    statuses = []

    async def scenario():
        async with serve_tools(Echo(), on_call=pytest.fail) as door, serve_tools(Echo()) as other:
            with pytest.raises(ExceptionGroup):
                async with mcp(door, mode=mode, key=other.key, on_status=statuses.append) as client:
                    await client.call_tool("echo", {})

    run(scenario)
    assert set(statuses) == {401}


def test_the_lookup_tasks_tools_answer_over_mcp_and_their_verifier_watches():
    taskset = LookupTaskset(LookupConfig(invented_share=0.0, kinds={"one_hop.area": 1}))
    task = taskset.task("train", 0)
    instance, attempt = taskset.instance(task), taskset.open(task)
    (needed,) = instance.needed

    async def scenario():
        async with serve_tools(attempt.tools) as door, mcp(door) as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert listed.keys() == {"population", "capital", "area"}
            (argument,) = listed[needed.tool].input_schema["properties"]
            refused = await client.call_tool(needed.tool, {"wrong": needed.entity})
            found = await client.call_tool(needed.tool, {argument: needed.entity})
            assert "error" in refused.content[0].text.lower()
            assert found.content[0].text == instance.answer

    run(scenario)
    assert [reward.value for reward in asyncio.run(attempt.verifier.verify(Work(instance.answer)))] == [1.0]


def test_on_a_unix_socket_any_user_reaches_the_tools_at_the_address_that_was_named(tmp_path):
    socket = tmp_path / "tools.sock"

    async def scenario():
        async with serve_tools(Echo(), socket=socket, base_url="http://127.0.0.1:8701") as door:
            assert (door.url, door.mcp_url) == ("http://127.0.0.1:8701/tools", "http://127.0.0.1:8701/mcp")
            assert socket.stat().st_mode & 0o777 == 0o666
            async with plain(door, socket=socket) as http:
                assert (await http.post(f"{door.url}/echo", content=b"{}")).json() == {"result": "echo: {}"}
            async with plain(door, socket=socket, key="wrong") as http:
                assert (await http.get(door.url)).status_code == 401
            for mode in MODES:
                async with mcp(door, mode=mode, socket=socket) as client:
                    assert (await client.call_tool("echo", {"text": "hi"})).content[0].text == 'echo: {"text": "hi"}'
            with pytest.raises(ConfigError, match="cannot serve on the socket"):
                async with serve_tools(Echo(), socket=socket, base_url="http://127.0.0.1:8701"):
                    pass
            assert socket.exists()
        assert not socket.exists()

    run(scenario)


def test_every_call_is_told_in_order_before_the_agent_is():
    told = []

    async def scenario():
        async with serve_tools(Echo(), on_call=told.append) as door, plain(door) as http, mcp(door) as client:
            for number in range(3):
                await http.post(f"{door.url}/echo", content=f"[{number} ".encode())
                assert len(told) == 2 * number + 1
                await client.call_tool("other", {"n": number})
                assert len(told) == 2 * number + 2
            await client.list_tools()
            await http.get(door.url)

    run(scenario)
    assert told[:2] == [ToolUse("echo", "[0 ", "echo: [0 ", "http"), ToolUse("other", '{"n": 0}', 'other: {"n": 0}', "mcp")]
    assert [use.arguments for use in told] == ["[0 ", '{"n": 0}', "[1 ", '{"n": 1}', "[2 ", '{"n": 2}']


def test_fifty_calls_at_once_on_both_wires_each_get_their_own_answer():
    class Waits(Echo):
        async def call(self, name, arguments):
            self.running += 1
            while self.running < 50:
                await asyncio.sleep(0.01)
            return f"{name}: {arguments}"

    told = []

    async def scenario():
        async with serve_tools(Waits(), on_call=told.append) as door, plain(door) as http, mcp(door) as client:

            async def over_http(number):
                return (await http.post(f"{door.url}/a", content=str(number))).json()["result"] == f"a: {number}"

            async def over_mcp(number):
                return (await client.call_tool("b", {"n": number})).content[0].text == f'b: {{"n": {number}}}'

            assert all(await asyncio.gather(*(over(number) for number in range(25) for over in (over_http, over_mcp))))

    run(scenario)
    assert len(told) == 50 == len({(use.wire, use.arguments) for use in told})


def test_calls_that_still_run_at_the_end_are_cut_off_with_an_answer(caplog):
    tools, told = Echo(), []

    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            async with serve_tools(tools, on_call=told.append) as door:
                http = await stack.enter_async_context(plain(door))
                await http.post(door.mcp_url, json=mcp_call("echo"), headers=HEADERS)
                modern = await stack.enter_async_context(mcp(door, mode="2026-07-28"))
                calls = [
                    asyncio.create_task(http.post(f"{door.url}/slow", content=b"{}")),
                    asyncio.create_task(http.post(door.mcp_url, json=mcp_call("slow"), headers=HEADERS)),
                    asyncio.create_task(modern.call_tool("slow", {})),
                ]
                reader, writer = await asyncio.open_connection("127.0.0.1", int(door.base_url.rsplit(":", 1)[1]))
                head = f"POST /tools/echo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {door.key}\r\ncontent-length: 9\r\n\r\n"
                writer.write(head.encode() + b"half")  # and the rest never comes
                while tools.running < len(calls):
                    await asyncio.sleep(0.01)
                began = time.monotonic()
            assert time.monotonic() - began < 3
            assert tools.num_cut_off == 3
            assert [(await call).status_code for call in calls[:2]] == [503, 503]
            assert (await asyncio.gather(calls[2], return_exceptions=True))[0].__class__.__name__ == "MCPError"
            assert b"503" in await reader.readline()
            writer.close()
            assert await refuses_connections(door)

    with caplog.at_level(logging.WARNING):
        run(scenario)
    assert [use.name for use in told] == ["echo"]
    assert [record.getMessage() for record in caplog.records] == []


def test_an_mcp_client_that_leaves_amid_its_request_disturbs_nobody(capfd):
    async def scenario():
        async with serve_tools(Echo()) as door:
            host, port = door.base_url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            head = f"POST /mcp HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {door.key}\r\ncontent-length: 99\r\n"
            headers = {**HEADERS, "mcp-protocol-version": MODES[1]}
            writer.write((head + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n{").encode())
            await writer.drain()
            await asyncio.sleep(0.2)
            writer.close()
            async with mcp(door) as client:
                assert (await client.call_tool("echo", {"text": "x"})).content[0].text == 'echo: {"text": "x"}'

    run(scenario)
    assert "ClientDisconnect" not in capfd.readouterr().err


def test_a_door_that_nobody_used_closes_at_once():
    async def scenario():
        async with serve_tools(Echo()) as door:
            began = time.monotonic()
        assert time.monotonic() - began < 0.4
        assert isinstance(door, ToolDoor) and await refuses_connections(door)

    run(scenario)


def test_who_uses_plain_http_pays_neither_for_mcp_nor_before_serving_for_the_server():
    code = """
        import asyncio, sys, urllib.request
        from trunkline.agents.tool_server import serve_tools
        assert "uvicorn" not in sys.modules

        class Nothing:
            specs = ()
            async def call(self, name, arguments): return "done"

        def ask(door):
            request = urllib.request.Request(door.url + "/x", b"{}", {"authorization": "Bearer " + door.key})
            return urllib.request.urlopen(request).read()

        async def scenario():
            async with serve_tools(Nothing()) as door:
                assert await asyncio.to_thread(ask, door) == b'{"result": "done"}'

        asyncio.run(scenario())
        assert "uvicorn" in sys.modules and "mcp" not in sys.modules
    """
    lines = "\n".join(line[8:] for line in code.splitlines())
    subprocess.run([sys.executable, "-c", lines], check=True, timeout=60)
