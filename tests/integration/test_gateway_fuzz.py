"""Bodies of every kind at the three wire APIs, over HTTP: an answer or a named refusal, never a 500, a hang or a lost record."""

from __future__ import annotations

import asyncio
import json
import random

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.chat_formats import family
from trunkline.asgi import serve_port
from trunkline.gateway.app import build_app
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.sampling import SamplingHold
from trunkline.gateway.sessions import SessionBudget
from trunkline.types import Generation, Message, PolicyVersion, ToolCall, VersionSpan

RENDERER, _ = family("qwen3")
REPLIES = (
    Message("assistant", "It is 7."),
    Message("assistant", "", (ToolCall("", "get", '{"x": "a"}'), ToolCall("", "get", '{"x": 1}'))),
    Message("assistant", "I look.", (ToolCall("", "patch", '{"input": "b"}'),), reasoning="Hm."),
)

texts = st.text(max_size=6) | st.sampled_from(["", "text", "user", "get", "c1", "<|im_end|>", "\ud800", "auto", "none", "{}", "\x00"])
scalars = st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats(allow_nan=True) | texts
junk = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8)
kinds = st.sampled_from(
    ["text", "input_text", "output_text", "image_url", "image", "tool_use", "tool_result", "thinking", "function", "custom", "reasoning",
     "message", "function_call", "function_call_output", "item_reference", "web_search", "bash_20250124", "refusal", "document"]
)  # fmt: skip
roles = st.sampled_from(["user", "assistant", "system", "developer", "tool", "function", "model"])
words = [
    "type", "role", "content", "text", "id", "call_id", "tool_call_id", "tool_use_id", "name", "arguments", "input",
    "output", "function", "tool_calls", "thinking", "signature", "summary", "cache_control", "is_error", "parameters",
    "input_schema", "description",
]  # fmt: skip
objects = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(words, junk) | {"type": kinds | junk, "role": roles | junk, "content": texts | junk}
)
turns = st.lists(objects | st.fixed_dictionaries({"role": roles, "content": texts | st.lists(objects, max_size=3)}), max_size=4)
others = [
    "system", "instructions", "tool_choice", "stop", "stop_sequences", "n", "max_tokens", "max_output_tokens", "stream",
    "temperature", "thinking", "text", "include", "previous_response_id", "logprobs", "metadata", "no_such_key",
    "model",
]  # fmt: skip
keys = dict.fromkeys(others, junk)
keys |= {"messages": turns | junk, "input": turns | texts | junk, "tools": st.lists(objects, max_size=2) | junk}
good = st.just({"model": "x", "max_tokens": 9, "messages": [{"role": "user", "content": "a?"}], "input": "a?"})
bodies = st.builds(lambda base, more: {**base, **more}, good | st.just({}), st.fixed_dictionaries({}, optional=keys))


class TalkingEngine:
    """Says one of REPLIES by the seed."""

    async def generate(self, request):
        reply = random.Random(request.sampling.seed).choice(REPLIES)
        ids = RENDERER.reply((Message("user", "?"), reply), ())[: request.sampling.max_tokens]
        finish = "stop" if ids[-1] in request.sampling.stop_token_ids else "length"
        return Generation(ids, (-0.5,) * len(ids), finish, (VersionSpan(0, len(ids), PolicyVersion(1, 0)),))


class CountingLog:
    """Counts rows."""

    num_rows = 0

    async def record_completion(self, episode_id, completion, messages):
        self.num_rows += 1


class Bench:
    """A served gateway on a loop of its own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.log = CountingLog()
        self.gateway = Gateway(TalkingEngine(), RENDERER, self.log, model_name="tiny")
        budget = SessionBudget(max_calls=10**9, max_tokens=10**9, max_context=10**6)
        self.opened = self.gateway.open_session(episode_id="e", seed=1, hold=SamplingHold(max_tokens=99), budget=budget)
        self.serving = self.loop.run_until_complete(serve_port(build_app(self.gateway)))
        headers = {"authorization": f"Bearer {self.opened.secret}", "content-type": "application/json"}
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.serving.port}", headers=headers, timeout=20, trust_env=False)

    def post(self, path, content):
        return self.loop.run_until_complete(self.http.post(path, content=content))

    def close(self):
        self.loop.run_until_complete(self.http.aclose())
        self.loop.run_until_complete(self.serving.stop())
        self.loop.close()


@pytest.fixture(scope="module")
def bench():
    opened = Bench()
    yield opened
    opened.close()


def as_json(body):
    """With NaN and lone surrogates as Python writes them: not all of it is JSON."""
    return json.dumps(body).encode()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=bodies)
def test_any_body_is_answered_and_recorded_or_refused_with_a_reason(bench, path, body):
    before = bench.log.num_rows
    response = bench.post(path, as_json(body))
    assert response.status_code in (200, 400), response.text
    num_new = bench.log.num_rows - before
    if response.status_code == 400:
        assert num_new == 0
        assert response.json()["error"]["message"]
    elif "event-stream" in response.headers["content-type"]:
        assert num_new >= 1
        assert "error" not in [line.removeprefix("event: ") for line in response.text.splitlines() if line.startswith("event: ")]
    else:
        assert num_new == len(response.json().get("choices", [None]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=60)
    | st.just(b'{"messages":[{"role":"user","content":"\xff"}],"input":"\xff"}')
    | st.builds(lambda body, cut: as_json(body)[:-cut], bodies, st.integers(1, 9))
)
def test_bytes_that_are_no_json_are_refused(bench, content):
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"):
        response = bench.post(path, content)
        assert response.status_code == 400, response.text


def test_a_count_of_tokens_is_the_length_of_the_prompt_and_records_nothing(bench):
    body = {"model": "x", "max_tokens": 9, "messages": [{"role": "user", "content": "how long?"}]}
    before = bench.log.num_rows
    counted = bench.post("/v1/messages/count_tokens", as_json(body)).json()["input_tokens"]
    assert bench.log.num_rows == before
    assert bench.post("/v1/messages", as_json(body)).json()["usage"]["input_tokens"] == counted
