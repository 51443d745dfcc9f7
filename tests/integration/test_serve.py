"""`trunkline serve` as users run it: the real command, OpenAI's own client, curl, signals, and an engine that dies."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from typer.testing import CliRunner

from trunkline.errors import ConfigError
from trunkline.gateway.markup import TINY
from trunkline.models.checkpoint import init_decoder, save_decoder
from trunkline.models.config import DecoderConfig
from trunkline.models.tokenizer import build_tiny_tokenizer
from trunkline.pool.journal_reader import JournalReader
from trunkline.run.cli import app
from trunkline.run.serve import Served

MAX_CONTEXT = 96
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 24}


def save_model(folder: Path, *, special_tokens: tuple[str, ...]) -> Path:
    tokenizer = build_tiny_tokenizer(special_tokens=special_tokens, pieces=[], characters=string.ascii_letters + string.digits + " .?:'\n")
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=16,
        max_positions=MAX_CONTEXT,
    )
    tokenizer.save(folder)
    decoder = init_decoder(config, seed=3)
    decoder.get_parameter("lm_head.weight").data[: len(special_tokens)] = 0  # so that greedy text never ends
    save_decoder(decoder, folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "tiny", special_tokens=TINY.special_tokens)


@contextlib.contextmanager
def serving(model: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], Served]]:
    """A running server, and what it printed: base URL, key, name."""
    command = [sys.executable, "-m", "trunkline.run.cli", "serve", str(model), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        assert first.startswith("serving "), (first, process.communicate())
        _, name, _, base_url, *_ = first.split()
        served = Served(base_url, second.removeprefix("key: ").rstrip("\n"), name)
        yield process, served
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("record") / "calls.sqlite"


@pytest.fixture(scope="module")
def running(model: Path, record: Path) -> Iterator[tuple[subprocess.Popen[str], Served]]:
    with serving(model, "--max-tokens", "20", "--record", str(record)) as pair:
        yield pair


@pytest.fixture(scope="module")
def served(running: tuple[subprocess.Popen[str], Served]) -> Served:
    return running[1]


@pytest.fixture(scope="module")
def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=served.base_url, api_key=served.key, max_retries=0)


def text(answer: openai.types.chat.ChatCompletion) -> str:
    return answer.choices[0].message.content or ""


def engine_of(process: subprocess.Popen[str]) -> psutil.Process:
    (engine,) = [child for child in psutil.Process(process.pid).children() if "trunkline.engine.server" in child.cmdline()]
    return engine


def test_printed_lines_work_as_they_are(running: tuple[subprocess.Popen[str], Served]) -> None:
    process, served = running
    assert process.stdout is not None
    lines = [process.stdout.readline().rstrip("\n") for _ in range(4)]
    assert lines == ["# in a shell:", served.curl, "# in Python:", served.python]
    curl = subprocess.run(["sh", "-c", f"{served.curl} --silent --fail"], capture_output=True, text=True, check=True)
    assert '"chat.completion"' in curl.stdout
    python = subprocess.run([sys.executable, "-c", served.python], capture_output=True, text=True, check=True)
    assert python.stdout.strip()
    assert shlex.split(served.curl)[0] == "curl"


def test_health_and_the_one_model_are_told(served: Served, client: openai.OpenAI) -> None:
    assert httpx.get(f"{served.base_url.removesuffix('/v1')}/healthz").json() == {"status": "ok"}
    assert [entry.id for entry in client.models.list()] == ["tiny"] == [served.model_name]


def test_another_key_is_refused_with_401(served: Served) -> None:
    for key in ("wrong", "trunkline", "ключ"):
        answer = httpx.post(f"{served.base_url}/chat/completions", json=ASK, headers={"authorization": f"Bearer {key}".encode()})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unknown_session")
    assert httpx.post(f"{served.base_url}/chat/completions", json=ASK).status_code == 401


def test_temperature_0_repeats_itself_and_temperature_1_does_not(client: openai.OpenAI) -> None:
    greedy = {text(client.chat.completions.create(**ASK, temperature=0)) for _ in range(2)}
    assert len(greedy) == 1
    sampled = {text(client.chat.completions.create(**ASK, temperature=1)) for _ in range(2)}
    assert len(sampled) == 2, "unseeded calls with the same messages are independent"
    assert greedy == {text(client.chat.completions.create(**ASK, temperature=1e-300))}, "coldest is greedy, not a crash"


def test_top_p_of_almost_nothing_is_greedy(client: openai.OpenAI) -> None:
    assert text(client.chat.completions.create(**ASK, top_p=1e-9)) == text(client.chat.completions.create(**ASK, temperature=0))


def test_a_seed_repeats_the_answer(client: openai.OpenAI) -> None:
    answers = [text(client.chat.completions.create(**ASK, seed=seed)) for seed in (-5, -5, 6)]
    assert answers[0] == answers[1] != answers[2]


def test_max_tokens_is_the_clients_and_else_the_servers(client: openai.OpenAI) -> None:
    messages = ASK["messages"]
    asked = client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=33)
    default = client.chat.completions.create(model="tiny", messages=messages, temperature=0)
    beyond = client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=10**6)
    assert [answer.choices[0].finish_reason for answer in (asked, default, beyond)] == ["length"] * 3
    assert (asked.usage.completion_tokens, default.usage.completion_tokens) == (33, 20)
    assert beyond.usage.total_tokens == MAX_CONTEXT


def test_stop_strings_cut_the_text(client: openai.OpenAI) -> None:
    whole = text(client.chat.completions.create(**ASK, temperature=0))
    assert len(whole) > 4
    cut = client.chat.completions.create(**ASK, temperature=0, stop=["never there", whole[3:5]])
    assert (text(cut), cut.choices[0].finish_reason) == (whole[: whole.index(whole[3:5])], "stop")


@pytest.mark.parametrize(
    ("extra", "word"),
    [({"temperature": -1}, "temperature"), ({"top_p": 0}, "top_p"), ({"top_p": 1.5}, "top_p"), ({"stop": [""]}, "stop")],
)
def test_what_cannot_be_honoured_is_refused_by_name(client: openai.OpenAI, extra: dict[str, object], word: str) -> None:
    with pytest.raises(openai.BadRequestError, match=word):
        client.chat.completions.create(**ASK, extra_body=extra)


def test_a_prompt_beyond_the_context_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=f"{MAX_CONTEXT - 1} maximum; shorten it"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "a" * MAX_CONTEXT}])


def test_many_clients_on_one_key_get_what_they_would_get_alone(served: Served) -> None:
    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=served.base_url, api_key=served.key, max_retries=0) as client:
            calls = [client.chat.completions.create(**ASK, seed=number % 8) for number in range(48)]
            return [text(answer) for answer in await asyncio.gather(*calls)]

    answers = asyncio.run(ask_all())
    assert answers[:8] * 6 == answers
    assert len(set(answers)) == 8


def test_a_conversation_goes_on_over_requests(client: openai.OpenAI) -> None:
    messages = list(ASK["messages"])
    for _ in range(2):
        answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=5, temperature=0)
        messages += [{"role": "assistant", "content": text(answer)}, {"role": "user", "content": "and?"}]
    assert answer.usage.prompt_tokens > len("Say hello.and?")


def test_every_answered_call_is_on_record_and_ended(served: Served, client: openai.OpenAI, record: Path) -> None:
    answer = client.chat.completions.create(**ASK, temperature=0.5, top_p=0.75)
    with JournalReader.open(record) as journal:
        *_, last = journal.episodes()
    (completion,) = last.completions
    assert answer.id == f"chatcmpl-{completion.completion_id}"
    assert (completion.sampling.temperature, completion.sampling.top_p) == (0.5, 0.75)
    assert last.messages[completion.reply_node].message.content == text(answer)
    assert last.reward is None and last.failure is not None, "nothing judged it"


def test_a_stopped_server_answers_what_is_in_flight_and_leaves_no_process(model: Path) -> None:
    with serving(model, "--open") as (process, served):
        assert served.key == "trunkline"
        engine = engine_of(process)
        engine.suspend()  # a call in flight stays so; even an engine that hangs is gone at the end
        ask = httpx.stream(
            "POST",
            f"{served.base_url}/chat/completions",
            json={**ASK, "stream": True},
            headers={"authorization": "Bearer trunkline"},
            timeout=60,
        )
        with ask as answer:
            lines = answer.iter_lines()
            assert next(lines) == ": keep-alive"
            process.send_signal(signal.SIGTERM)
            assert any("the server is stopping" in line for line in lines)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "stopped" in stderr and "Traceback" not in stderr and "ERROR" not in stderr
    assert not psutil.wait_procs([engine], timeout=20)[1]


def test_an_engine_that_dies_ends_the_server_with_its_cause(model: Path) -> None:
    with serving(model) as (process, _):
        engine_of(process).kill()
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the engine process ended with status -9" in stderr and "Traceback" not in stderr


def refusal(folder: Path, *options: str) -> str:
    done = CliRunner().invoke(app, ["serve", str(folder), *options])
    assert isinstance(done.exception, ConfigError) and done.stdout == ""
    return str(done.exception)


def test_open_beyond_loopback_is_refused_before_anything_starts(model: Path) -> None:
    assert "--open sets a key that everybody knows" in refusal(model, "--open", "--host", "0.0.0.0")


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(tmp_path)


def test_a_vocabulary_of_no_known_format_lists_the_choices(tmp_path: Path) -> None:
    message = refusal(save_model(tmp_path / "odd", special_tokens=("<s>", "</s>")))
    assert "--renderer" in message and "chatml" in message and "qwen3" in message
