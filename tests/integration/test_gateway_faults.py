"""What breaks under agents: the gateway is killed, the engine restarts, the disk fills. Real processes and the official clients."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.chat_formats import family
from trunkline.asgi import serve_uds
from trunkline.engine import wire
from trunkline.pool.journal_reader import JournalReader
from trunkline.types import Generation, Message, PolicyVersion, VersionSpan

RENDERER, _ = family("kimi-k2")
ROOT = Path(__file__).parents[2]
QUESTION = [{"role": "user", "content": "area of Peru?"}]


class StubEngine:
    """The engine's side of the wire: answers at once, or when `gate` opens; tokens after a scripted text."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.gate = asyncio.Event()
        self.gate.set()
        self.num_calls = 0

    async def _generate(self, request: Request) -> Response:
        asked = wire.msgspec.json.decode(await request.body(), type=wire.WireRequest).unpack()
        self.num_calls += 1
        ids = RENDERER.reply((Message("user", "?"), Message("assistant", f"answer {self.num_calls}")), ())
        await self.gate.wait()
        generation = Generation(ids, (-0.5,) * len(ids), "stop", (VersionSpan(0, len(ids), PolicyVersion(1, 0)),))
        return Response(wire.msgspec.json.encode(wire.WireGeneration.pack(asked.request_id, generation)))

    @asynccontextmanager
    async def serving(self):
        app = Starlette(routes=[Route(wire.GENERATE, self._generate, methods=["POST"])])
        served = await serve_uds(app, self.socket)
        try:
            yield self
        finally:
            await served.stop()


@asynccontextmanager
async def gateway(folder: Path, *arguments: str):
    """The gateway's process, a client of it, and its end."""
    command = ["-m", "tests.integration.gateway_process", str(folder / "journal.sqlite"), str(folder / "engine.sock"), *arguments]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    try:
        told = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{told['port']}/v1", api_key=told["key"], max_retries=0)
        yield process, client
        await client.close()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def recorded(folder: Path):
    with JournalReader.open(folder / "journal.sqlite") as reader:
        return reader.read_completions("g0-a00")


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario, 90))


async def ask(client, **body):
    return await client.chat.completions.create(**{"model": "x", "messages": QUESTION, **body})


def test_after_kill_9_in_the_middle_of_a_stream_the_client_has_an_error_and_every_finished_call_is_on_record(tmp_path):
    async def scenario():
        engine = StubEngine(tmp_path / "engine.sock")
        async with engine.serving(), gateway(tmp_path) as (process, client):
            texts = [(await ask(client)).choices[0].message.content for _ in range(3)]
            engine.gate.clear()
            stream = await ask(client, stream=True)  # begins with comments, for the call is not recorded yet
            process.kill()
            with pytest.raises((openai.APIError, httpx.HTTPError)):
                async for _ in stream:
                    pass
            engine.gate.set()
        assert texts == [f"answer {number}" for number in (1, 2, 3)]
        assert [RENDERER.parse(one.generation.token_ids, ()).message.content for one in recorded(tmp_path)] == texts

    run(scenario())


def test_an_engine_that_restarts_costs_a_retry_and_no_record(tmp_path):
    async def scenario():
        engine = StubEngine(tmp_path / "engine.sock")
        async with gateway(tmp_path) as (_, client):
            async with engine.serving():
                await ask(client)
            with pytest.raises(openai.InternalServerError) as away:
                await ask(client)
            assert (away.value.status_code, away.value.code) == (503, "engine_unavailable")
            assert away.value.response.headers["retry-after"] == "1"
            patient = client.with_options(max_retries=8)
            waiting = asyncio.create_task(ask(patient))
            await asyncio.sleep(0.5)
            async with engine.serving():
                assert (await waiting).choices[0].message.content == "answer 2"
        first, second = recorded(tmp_path)
        assert second.sampling.seed != first.sampling.seed  # the retry is the context's second sample, as if nothing had failed

    run(scenario())


def test_on_a_full_disk_no_answer_leaves_that_is_not_on_record(tmp_path):
    async def scenario():
        engine = StubEngine(tmp_path / "engine.sock")
        async with engine.serving(), gateway(tmp_path, str(256 * 1024)) as (_, client):
            answered = 0
            with pytest.raises(openai.InternalServerError) as caught:
                while answered < 2000:
                    await ask(client, messages=[{"role": "user", "content": f"{answered} " + "long " * 400}])
                    answered += 1
            assert (caught.value.status_code, caught.value.code) == (503, "journal_unavailable")
            assert answered > 0
        return answered

    answered = asyncio.run(asyncio.wait_for(scenario(), 90))
    assert len(recorded(tmp_path)) == answered
