"""The engine's process over its real socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from trunkline.engine import wire
from trunkline.engine.client import EngineClient
from trunkline.errors import EngineError, EngineUnavailable
from trunkline.models.checkpoint import init_decoder, save_decoder
from trunkline.models.config import DecoderConfig
from trunkline.types import GenerationRequest, PolicyVersion, SamplingParams, VersionSpan, WeightRef
from trunkline.weights.files import publish

CONFIG = DecoderConfig(
    vocab_size=50, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=4, num_kv_heads=4, head_dim=8, max_positions=30_000
)
V1, V2 = PolicyVersion(1, 0), PolicyVersion(1, 1)
LONG = SamplingParams(max_tokens=29_000)


@dataclass(frozen=True)
class Server:
    """A running engine."""

    process: subprocess.Popen[bytes]
    socket_path: Path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_decoder(init_decoder(CONFIG, seed=1), folder)
    return folder


@contextlib.contextmanager
def _serving(model: Path, socket_path: Path) -> Iterator[Server]:
    arguments = ["--model", str(model), "--socket", str(socket_path), "--version", "1.0", "--max-cached-tokens", "60000"]
    process = subprocess.Popen([sys.executable, "-m", "trunkline.engine.server", *arguments])
    try:
        yield Server(process, socket_path)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with _serving(model, tmp_path_factory.mktemp("s") / "e.sock") as server:
        yield server


@contextlib.asynccontextmanager
async def _client(server: Server) -> AsyncIterator[EngineClient]:
    client = EngineClient(server.socket_path)
    await client.wait_ready(60)
    try:
        yield client
    finally:
        await client.close()


def _request(name: str, sampling: SamplingParams, token_ids: tuple[int, ...] = (1, 2, 3)) -> GenerationRequest:
    return GenerationRequest(name, token_ids, sampling)


async def _until_running(client: EngineClient, count: int) -> None:
    async with asyncio.timeout(10):
        while (await client.health()).running != count:
            await asyncio.sleep(0.01)


def test_hundreds_of_concurrent_calls_are_answered_each_with_its_own(server: Server) -> None:
    async def scenario() -> None:
        async with _client(server) as client:
            requests = [
                _request(f"c{index}", SamplingParams(8, temperature=0.8, seed=2**64 - 1 - index), (index % 50, 4)) for index in range(300)
            ]
            together = await asyncio.gather(*(client.generate(request) for request in requests))
            for index in (0, 7, 299):
                alone = await client.generate(_request("alone", requests[index].sampling, requests[index].token_ids))
                assert alone.token_ids == together[index].token_ids
                assert alone.version_spans == (VersionSpan(0, 8, V1),)
                assert alone.finish_reason == "length"
            health = await client.health()
            assert health.tokens_sampled >= 303 * 8 and (health.running, health.waiting) == (0, 0)

    asyncio.run(scenario())


def test_abort_answers_with_what_was_sampled(server: Server) -> None:
    async def scenario() -> None:
        async with _client(server) as client:
            generating = asyncio.create_task(client.generate(_request("long", LONG)))
            await _until_running(client, 1)
            await asyncio.sleep(0.05)
            await client.abort(["long", "unknown"])
            generation = await generating
            assert generation.finish_reason == "abort"
            assert 0 < len(generation.token_ids) < LONG.max_tokens

    asyncio.run(scenario())


def test_a_client_that_hangs_up_aborts_its_request(server: Server) -> None:
    async def scenario() -> None:
        async with _client(server) as client:
            generating = asyncio.create_task(client.generate(_request("long", LONG)))
            await _until_running(client, 1)
            generating.cancel()
            await _until_running(client, 0)

    asyncio.run(scenario())


def test_an_update_while_paused_splits_the_completion_into_version_spans(model: Path, tmp_path: Path) -> None:
    async def scenario(server: Server) -> None:
        async with _client(server) as client:
            generating = asyncio.create_task(client.generate(_request("spans", SamplingParams(2000))))
            await _until_running(client, 1)
            await client.pause()
            assert (await client.health()).status == "paused"
            before = (await client.health()).tokens_sampled
            ref = publish(init_decoder(CONFIG, seed=2).state_dict(), V2, tmp_path)
            await client.update_weights(ref)
            assert (await client.health()).tokens_sampled == before
            await client.resume()
            generation = await generating
            assert generation.version_spans == (VersionSpan(0, before, V1), VersionSpan(before, 2000, V2))
            assert (await client.health()).weight_version == "1.1"
            with pytest.raises(EngineError, match="cannot fetch policy version"):
                await client.update_weights(WeightRef(tmp_path / "gone", PolicyVersion(1, 2)))

    with _serving(model, tmp_path / "e.sock") as server:
        asyncio.run(scenario(server))


async def _raw(server: Server, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of a request that EngineClient would not make."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(server.socket_path))) as http,
        http.request(method, f"http://engine{path}", json=body) as response,
    ):
        return response.status, await response.json(content_type=None)


def test_pause_with_mode_abort_ends_requests(server: Server) -> None:
    async def scenario() -> None:
        async with _client(server) as client:
            generating = asyncio.create_task(client.generate(_request("long", LONG)))
            await _until_running(client, 1)
            await _raw(server, "POST", "/pause?mode=abort")
            assert (await generating).finish_reason == "abort"
            assert await _raw(server, "GET", "/is_paused") == (200, {"is_paused": True})
            assert (await _raw(server, "POST", "/pause?mode=wait"))[0] == 400
            await client.resume()
            assert await _raw(server, "GET", "/is_paused") == (200, {"is_paused": False})

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_k": 5}, "top_k"),
        ({"logprobs": 3}, "logprobs"),
        ({"top_p": 0}, r"top_p must be in \(0, 1\], got 0"),
        ({"temperature": -1}, "temperature must be at least 0"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_a_sampling_knob_that_is_not_honoured_is_an_error(server: Server, change: dict[str, float], message: str) -> None:
    async def scenario() -> None:
        async with _client(server):
            body = {"request_id": "r", "token_ids": [1], "sampling_params": {"max_tokens": 1, **change}}
            status, answer = await _raw(server, "POST", wire.GENERATE, body)
            assert status == 400
            assert re.search(message, answer["error"]["message"])

    asyncio.run(scenario())


def test_the_servers_refusal_reaches_the_caller_in_its_words(server: Server) -> None:
    async def scenario() -> None:
        async with _client(server) as client:
            with pytest.raises(EngineError, match=r"1\.\.29999 tokens .* got 30000") as caught:
                await client.generate(_request("r", SamplingParams(1), tuple([1] * 30_000)))
            assert not isinstance(caught.value, EngineUnavailable)

    asyncio.run(scenario())


def test_a_killed_engine_is_unavailable_at_once_and_so_is_one_that_never_was(model: Path, tmp_path: Path) -> None:
    async def scenario(server: Server) -> None:
        async with _client(server) as client:
            generating = asyncio.create_task(client.generate(_request("long", LONG)))
            await _until_running(client, 1)
            server.process.kill()
            with pytest.raises(EngineUnavailable, match="does not answer"):
                await generating
            with pytest.raises(EngineUnavailable):
                await client.generate(_request("next", LONG))
        with pytest.raises(EngineUnavailable, match="not ready after 0.1 s"):
            await EngineClient(tmp_path / "nobody.sock").wait_ready(0.1)

    with _serving(model, tmp_path / "e.sock") as server:
        asyncio.run(scenario(server))


def test_sigterm_answers_what_runs_and_ends_cleanly_while_sigint_does_nothing(model: Path, tmp_path: Path) -> None:
    async def scenario(server: Server) -> None:
        async with _client(server) as client:
            generating = asyncio.create_task(client.generate(_request("long", LONG)))
            await _until_running(client, 1)
            server.process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.2)
            assert (await client.health()).running == 1
            server.process.send_signal(signal.SIGTERM)
            assert (await generating).finish_reason == "abort"

    with _serving(model, tmp_path / "e.sock") as server:
        asyncio.run(scenario(server))
        assert server.process.wait(5) == 0
        assert not server.socket_path.exists()


def test_an_engine_ends_when_its_parent_dies(model: Path, tmp_path: Path) -> None:
    socket_path = tmp_path / "e.sock"
    arguments = ["-m", "trunkline.engine.server", "--model", str(model), "--socket", str(socket_path), "--version", "1.0"]
    start = f"import subprocess, sys, time; print(subprocess.Popen([sys.executable, *{arguments!r}]).pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        engine_pid = int(parent.stdout.readline())
        asyncio.run(EngineClient(socket_path).wait_ready(60))
        parent.kill()

    async def until_gone() -> None:
        async with asyncio.timeout(10):
            while socket_path.exists():
                await asyncio.sleep(0.05)

    try:
        asyncio.run(until_gone())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(engine_pid, signal.SIGKILL)


def test_diverged_weights_end_the_process_and_the_calls_in_it(model: Path, tmp_path: Path) -> None:
    async def scenario(server: Server) -> None:
        async with _client(server) as client:
            broken = {name: tensor * float("nan") for name, tensor in init_decoder(CONFIG, seed=1).state_dict().items()}
            await client.update_weights(publish(broken, V2, tmp_path))
            with pytest.raises(EngineUnavailable, match="diverged"):
                await client.generate(_request("r", SamplingParams(1)))

    with _serving(model, tmp_path / "e.sock") as server:
        asyncio.run(scenario(server))
        assert server.process.wait(5) == 1


def test_the_client_imports_no_torch() -> None:
    check = "import sys, trunkline.engine.client; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
