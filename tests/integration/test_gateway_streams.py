"""Streamed answers over real sockets: OpenAI's own client, raw bytes, clients that leave or do not read, failures early and late."""

from __future__ import annotations

import asyncio
import json
import socket
import string

import httpx
import openai
import pytest

from trunkline.asgi import serve_port
from trunkline.errors import EngineUnavailable, JournalError
from trunkline.gateway.app import build_app
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.markup import TINY, MarkupRenderer
from trunkline.gateway.sampling import SamplingHold
from trunkline.gateway.sessions import SessionBudget
from trunkline.models.tokenizer import build_tiny_tokenizer
from trunkline.types import Generation, Message, PolicyVersion, ToolCall, ToolSpec, VersionSpan

ODD = "é\u2028\u0085\u0301€\U0001f600"  # one to four bytes each; two of them end a line for str.splitlines()
TOKENIZER = build_tiny_tokenizer(
    special_tokens=TINY.special_tokens, pieces=["get", "entity"], characters=string.ascii_letters + string.digits + " .?:'" + ODD
)
RENDERER = MarkupRenderer(TOKENIZER, TINY)
GET = ToolSpec("get", "One fact", {"type": "object", "properties": {"entity": {"type": "string"}}})
WIRE_TOOL = {"type": "function", "function": {"name": "get", "description": "One fact", "parameters": dict(GET.parameters)}}
TWO_CALLS = Message("assistant", "", (ToolCall("", "get", '{"entity":"Peru"}'), ToolCall("", "get", '{"entity":"Chad"}')))
QUESTION = [{"role": "user", "content": "area of Peru?"}]
LONG = 100_000
SMALL_BUFFER = 8192


class PausableEngine:
    """Says `reply`; raises what `failures` holds first; samples nothing while paused."""

    def __init__(self, reply):
        self.reply = reply
        self.failures = []
        self.is_aborted = False
        self.running = asyncio.Event()
        self.running.set()

    async def generate(self, request):
        await self.running.wait()
        if self.failures:
            raise self.failures.pop(0)
        if self.is_aborted:
            return Generation((), (), "abort", ())
        ids = RENDERER.reply((Message("user"), self.reply), (GET,))
        return Generation(ids, (-0.5,) * len(ids), "stop", (VersionSpan(0, len(ids), PolicyVersion(1, 0)),))

    async def abort(self, request_ids):
        self.is_aborted = True
        self.running.set()

    async def pause(self):
        self.running.clear()

    async def resume(self):
        self.running.set()


class CountingLog:
    """Counts rows, or refuses them as a full disk would."""

    def __init__(self):
        self.num_rows = 0
        self.broken = False

    async def record_completion(self, episode_id, completion, messages):
        if self.broken:
            raise JournalError("no space left on the journal's disk")
        self.num_rows += 1


class Served:
    """A gateway on a free port, with one open session, whose sockets hold little."""

    def __init__(self, reply, *, keep_alive_s=60.0, max_calls=8):
        self.engine, self.log = PausableEngine(reply), CountingLog()
        self.gateway = Gateway(self.engine, RENDERER, self.log, model_name="tiny")
        budget = SessionBudget(max_calls=max_calls, max_context=2 * LONG)
        self.opened = self.gateway.open_session(episode_id="e", seed=1, hold=SamplingHold(max_tokens=2 * LONG), budget=budget)
        self.keep_alive_s = keep_alive_s
        self.clients = []

    async def __aenter__(self):
        self.serving = await serve_port(build_app(self.gateway, keep_alive_s=self.keep_alive_s))
        for listener in self.serving.server.servers:
            for listening in listener.sockets:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)  # inherited by what it accepts
        self.root = f"http://127.0.0.1:{self.serving.port}"
        self.http = httpx.AsyncClient(base_url=self.root, headers={"authorization": f"Bearer {self.opened.secret}"}, trust_env=False)
        return self

    async def __aexit__(self, *error):
        await self.http.aclose()
        for client in self.clients:
            await client.close()
        await self.serving.stop()

    def openai(self, *, key=None):
        """Closed with the server: one that is left to the garbage collector closes itself on the loop of a later test."""
        client = openai.AsyncOpenAI(base_url=f"{self.root}/v1", api_key=key or self.opened.secret, max_retries=0)
        self.clients.append(client)
        return client

    def stream(self, **body):
        return self.http.stream("POST", "/v1/chat/completions", json={"messages": QUESTION, "stream": True, **body}, timeout=30)

    async def slow_client(self):
        """A connection that has asked and holds only a little unread."""
        wire = socket.socket()
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        wire.setblocking(False)
        await asyncio.get_running_loop().sock_connect(wire, ("127.0.0.1", self.serving.port))
        reader, writer = await asyncio.open_connection(sock=wire, limit=SMALL_BUFFER)
        body = json.dumps({"messages": QUESTION, "stream": True}).encode()
        path = f"/s/{self.opened.secret}/v1/chat/completions"
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        return reader, writer

    def unsent_bytes(self):
        """What the server holds for its slowest client."""
        return max(connection.transport.get_write_buffer_size() for connection in self.serving.server.server_state.connections)


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario(), 60))


async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)


def datas(raw):
    """The data of each event of a whole body; comments are left out."""
    events = raw.decode().removesuffix("\n\n").split("\n\n")
    return [event.removeprefix("data: ") for event in events if not event.startswith(":")]


def said(choice):
    """All that a choice says but the calls' ids, which differ between two answers of the same words."""
    calls = [(call.type, call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()]
    return choice.finish_reason, choice.message.role, choice.message.content, calls


@pytest.mark.parametrize(
    "reply", [Message("assistant", ODD * 200), TWO_CALLS, Message("assistant", "look", TWO_CALLS.tool_calls), Message("assistant")]
)
def test_openais_own_client_reads_the_same_from_a_stream_as_from_json(reply):
    async def scenario():
        async with Served(reply) as served:
            client = served.openai()
            whole = await client.chat.completions.create(model="x", messages=QUESTION, tools=[WIRE_TOOL])
            options = {"include_usage": True}
            async with client.chat.completions.stream(model="x", messages=QUESTION, tools=[WIRE_TOOL], stream_options=options) as stream:
                streamed = await stream.get_final_completion()
            assert said(streamed.choices[0]) == said(whole.choices[0])
            assert (streamed.usage, streamed.model) == (whole.usage, "tiny")

            def ask_without_asyncio():
                sync = openai.OpenAI(base_url=f"{served.root}/v1", api_key=served.opened.secret)
                return list(sync.chat.completions.create(model="x", messages=QUESTION, tools=[WIRE_TOOL], stream=True))

            chunks = await asyncio.to_thread(ask_without_asyncio)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == (whole.choices[0].message.content or "")
            names = [call.function.name for chunk in chunks for call in chunk.choices[0].delta.tool_calls or () if call.function.name]
            assert names == [call.name for call in reply.tool_calls]
            completions = served.gateway.episode_record("e").completions
            assert len({one.generation.token_ids for one in completions}) == 1 and len(completions) == served.log.num_rows == 3

    run(scenario)


def test_a_stream_is_framed_as_events_and_ends_with_done():
    async def scenario():
        async with Served(Message("assistant", ODD + "x" * 600)) as served:
            async with served.stream() as response:
                raw = await response.aread()
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-cache"
            assert raw.endswith(b"data: [DONE]\n\n")
            assert raw.decode().splitlines() == raw.decode().split("\n")[:-1], (
                "no text ends a line, also for clients that split by Unicode's rules"
            )
            *chunks, done = datas(raw)
            chunks = [json.loads(chunk) for chunk in chunks]
            assert done == "[DONE]"
            assert [chunk["choices"][0]["delta"] for chunk in chunks][::4] == [{"role": "assistant", "content": ""}, {}]
            assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 4 + ["stop"]
            assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == ODD + "x" * 600
            assert not any("usage" in chunk for chunk in chunks)

    run(scenario)


def test_refusals_before_the_first_byte_are_ordinary_answers():
    async def scenario():
        async with Served(Message("assistant", "ok"), max_calls=1) as served:
            ask = {"model": "x", "messages": QUESTION, "stream": True}
            with pytest.raises(openai.AuthenticationError):
                await served.openai(key="wrong").chat.completions.create(**ask)
            with pytest.raises(openai.BadRequestError, match="n must be 1"):
                await served.openai().chat.completions.create(n=0, **ask)
            served.engine.failures = [EngineUnavailable("starting")]
            with pytest.raises(openai.InternalServerError) as starting:
                await served.openai().chat.completions.create(**ask)
            assert (starting.value.status_code, starting.value.response.headers["retry-after"]) == (503, "1")
            async with served.stream() as response:
                assert (await response.aread()).endswith(b"[DONE]\n\n")
            with pytest.raises(openai.RateLimitError) as spent:
                await served.openai().chat.completions.create(**ask)
            assert spent.value.code == "budget_exceeded"

    run(scenario)


def test_comments_keep_the_connection_alive_while_the_engine_is_paused():
    async def scenario():
        async with Served(Message("assistant", "ok"), keep_alive_s=0.02) as served:
            await served.gateway.pause()
            async with served.stream() as response:
                assert response.status_code == 200
                parts = response.aiter_raw()
                waiting = b""
                while waiting.count(b": keep-alive\n\n") < 3:
                    waiting += await anext(parts)
                assert waiting.replace(b": keep-alive\n\n", b"") == b""
                assert served.log.num_rows == 0, "nothing is answered before it is recorded"
                await served.gateway.resume()
                rest = b"".join([part async for part in parts])
            assert datas(rest)[-1] == "[DONE]"
            await served.gateway.pause()
            stream = await served.openai().chat.completions.create(model="x", messages=QUESTION, stream=True)  # after a comment
            await served.gateway.resume()
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "ok"

    run(scenario)


@pytest.mark.parametrize(
    ("cause", "kind", "code"),
    [
        ("engine", "server_error", "engine_unavailable"),
        ("journal", "server_error", "journal_unavailable"),
        ("close", "authentication_error", "unknown_session"),
    ],
)
def test_a_failure_after_the_first_byte_is_an_error_event_without_done(cause, kind, code):
    async def scenario():
        async with Served(Message("assistant", "ok"), keep_alive_s=0.02) as served:
            await served.gateway.pause()
            stream = await served.openai().chat.completions.create(model="x", messages=QUESTION, stream=True)
            async with served.stream() as response:
                if cause == "close":
                    await served.gateway.close_session(served.opened.session_id)
                else:
                    served.engine.failures = [EngineUnavailable("died")] * 2 if cause == "engine" else []
                    served.log.broken = cause == "journal"
                    await served.gateway.resume()
                (data,) = datas(await response.aread())
            error = json.loads(data)["error"]
            assert (error["type"], error["code"]) == (kind, code)
            with pytest.raises(openai.APIError) as caught:
                await anext(aiter(stream))
            assert caught.value.code == code

    run(scenario)


def test_a_client_that_leaves_while_it_waits_is_recorded_and_leaves_no_task():
    async def scenario():
        async with Served(Message("assistant", "ok"), keep_alive_s=0.02) as served:
            await served.gateway.pause()
            before = asyncio.all_tasks()
            async with served.stream() as response:
                await anext(response.aiter_raw())
            await until(lambda: not served.serving.server.server_state.tasks)  # its stream has ended; the call has not
            await served.gateway.resume()
            await until(lambda: asyncio.all_tasks() <= before)
            assert len(served.gateway.episode_record("e").completions) == served.log.num_rows == 1
            assert not served.gateway.sessions()[0].num_in_flight

    run(scenario)


def test_a_client_that_leaves_in_the_middle_is_recorded_and_leaves_no_task():
    async def scenario():
        async with Served(Message("assistant", "x" * LONG)) as served:
            before = asyncio.all_tasks()
            reader, writer = await served.slow_client()
            await reader.readuntil(b"data: ")
            assert served.unsent_bytes() > 0
            writer.transport.abort()
            await until(lambda: asyncio.all_tasks() <= before)
            assert served.log.num_rows == 1

    run(scenario)


def test_a_client_that_does_not_read_holds_little_memory_and_delays_nobody():
    async def scenario():
        async with Served(Message("assistant", "x" * LONG)) as served:
            reader, writer = await served.slow_client()
            await reader.readuntil(b"data: ")
            for _ in range(3):
                async with served.stream() as response:
                    assert (await response.aread()).endswith(b"[DONE]\n\n")
            assert 0 < served.unsent_bytes() < 100_000, "uvicorn waits above 64 KiB"
            raw = b"data: " + await reader.read(-1)  # now it reads, in HTTP's own pieces
            assert raw.count(b"x" * 200) > LONG / 300 and b"[DONE]" in raw
            writer.close()

    run(scenario)
