"""The gateway over real sockets: OpenAI's own client, our white-box loop, the operator's socket, and every refusal."""

import asyncio
import dataclasses
import json
import socket
import string

import httpx
import openai
import pytest

from tests.engines import QuietEngine, spoken
from trunkline.agents.loop_settings import LoopSettings
from trunkline.agents.tool_loop import ToolLoop, shared_http
from trunkline.asgi import serve_port, serve_uds
from trunkline.errors import AgentError, ConfigError, EngineUnavailable, JournalError
from trunkline.gateway.app import build_app
from trunkline.gateway.control import build_control_app
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.markup import TINY, MarkupRenderer
from trunkline.gateway.sampling import SamplingHold
from trunkline.gateway.sessions import SessionBudget
from trunkline.models.tokenizer import build_tiny_tokenizer
from trunkline.protocols import Assignment
from trunkline.types import Message, ToolCall, ToolSpec

TOKENIZER = build_tiny_tokenizer(
    special_tokens=TINY.special_tokens, pieces=["get", "entity"], characters=string.ascii_letters + string.digits + " .?:'"
)
RENDERER = MarkupRenderer(TOKENIZER, TINY)
GET = ToolSpec("get", "One fact", {"type": "object", "properties": {"entity": {"type": "string"}}})
WIRE_TOOL = {"type": "function", "function": {"name": "get", "description": "One fact", "parameters": dict(GET.parameters)}}
CALL_PERU = Message("assistant", "", (ToolCall("", "get", '{"entity":"Peru"}'),))
QUESTION = [{"role": "user", "content": "area of Peru?"}]


class ScriptedEngine(QuietEngine):
    """Says `replies` in turn, the last one for ever; raises what `failures` holds first."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.failures = []
        self.prompts = []

    async def generate(self, request):
        if self.failures:
            raise self.failures.pop(0)
        self.prompts.append(request.token_ids)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return spoken(RENDERER, reply, request, (GET,))


class CountingLog:
    """Counts rows; `held` delays and `broken` refuses them."""

    def __init__(self):
        self.num_rows = 0
        self.broken = False
        self.open = asyncio.Event()
        self.open.set()

    async def record_completion(self, episode_id, completion, messages):
        if self.broken:
            raise JournalError("no space left on the journal's disk")
        self.num_rows += 1
        await self.open.wait()


class PeruTools:
    """One tool with one fact."""

    specs = (GET,)

    def __init__(self):
        self.calls = []

    async def call(self, name, arguments):
        self.calls.append((name, json.loads(arguments)))
        return "1285216"


class Served:
    """A gateway on a free port, with one open session."""

    def __init__(self, *replies, budget=SessionBudget()):
        self.engine, self.log = ScriptedEngine(*replies), CountingLog()
        self.gateway = Gateway(self.engine, RENDERER, self.log, model_name="tiny")
        self.opened = self.gateway.open_session(episode_id="e", seed=1, hold=SamplingHold(max_tokens=64), budget=budget)
        self.clients = []

    async def __aenter__(self):
        self.serving = await serve_port(build_app(self.gateway))
        self.root = f"http://127.0.0.1:{self.serving.port}"
        self.http = httpx.AsyncClient(base_url=self.root, headers={"authorization": f"Bearer {self.opened.secret}"}, trust_env=False)
        return self

    async def __aexit__(self, *error):
        await self.http.aclose()
        for client in self.clients:
            await client.close()
        await self.serving.stop()

    def openai(self, *, base_url=None, key=None, **options):
        """Closed with the server: one that is left to the garbage collector closes itself on the loop of a later test."""
        client = openai.AsyncOpenAI(base_url=base_url or f"{self.root}/v1", api_key=key or self.opened.secret, **options)
        self.clients.append(client)
        return client

    async def post(self, **body):
        return await self.http.post("/v1/chat/completions", json={"model": "any", "messages": QUESTION, **body})

    def assignment(self, tools, *, key=None):
        prompt = (Message("user", "area of Peru?"),)
        return Assignment(prompt, tools, f"{self.root}/v1", key or self.opened.secret, "tiny")


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_openai_client_calls_a_tool_and_continues_its_tokens():
    async def scenario():
        async with Served(CALL_PERU, Message("assistant", "1285216")) as served:
            client = served.openai()
            first = await client.chat.completions.create(model="gpt", messages=QUESTION, tools=[WIRE_TOOL])
            choice = first.choices[0]
            assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
            call = choice.message.tool_calls[0]
            assert (call.function.name, json.loads(call.function.arguments)) == ("get", {"entity": "Peru"})
            history = [*QUESTION, choice.message, {"role": "tool", "tool_call_id": call.id, "content": "1285216"}]
            second = await client.chat.completions.create(model="gpt", messages=history, tools=[WIRE_TOOL])
            assert (second.choices[0].finish_reason, second.choices[0].message.content) == ("stop", "1285216")
            completions, _ = served.gateway.episode_record("e")
            assert completions[1].parent_id == completions[0].completion_id
            assert second.usage.prompt_tokens == len(completions[1].prompt_ids) == len(served.engine.prompts[1])
            assert second.model == "tiny"
            assert [model.id async for model in client.models.list()] == ["tiny"]

    run(scenario)


def test_a_session_is_found_by_its_path_as_well():
    async def scenario():
        async with Served(Message("assistant", "ok")) as served:
            client = served.openai(base_url=f"{served.root}/s/{served.opened.secret}/v1", key="anything")
            answer = await client.chat.completions.create(model="x", messages=QUESTION, max_tokens=1)
            assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("o", "length")

    run(scenario)


def test_refusals_are_the_openai_clients_own_exceptions():
    async def scenario():
        async with Served(Message("assistant", "ok"), budget=SessionBudget(max_calls=1)) as served:
            with pytest.raises(openai.AuthenticationError):
                await served.openai(key="wrong").chat.completions.create(model="x", messages=QUESTION)
            client = served.openai()
            with pytest.raises(openai.BadRequestError, match="n must be 1"):
                await client.chat.completions.create(model="x", messages=QUESTION, n=200)
            served.engine.failures = [EngineUnavailable("starting")]
            once = served.openai(max_retries=0)
            with pytest.raises(openai.InternalServerError) as caught:
                await once.chat.completions.create(model="x", messages=QUESTION)
            assert (caught.value.status_code, caught.value.response.headers["retry-after"]) == (503, "1")
            await client.chat.completions.create(model="x", messages=QUESTION)
            with pytest.raises(openai.RateLimitError) as spent:  # with its usual retries: it is told not to
                await client.chat.completions.create(model="x", messages=QUESTION)
            assert spent.value.code == "budget_exceeded"
            await served.gateway.close_session(served.opened.session_id)
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model="x", messages=QUESTION)

    run(scenario)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"n": 0}, "n must be 1"),
        ({"messages": []}, "messages is empty"),
        ({"messages": "hi"}, "messages"),
        ({"stop": ["a", ""]}, "empty string"),
        ({"tools": [WIRE_TOOL, WIRE_TOOL]}, "names must differ"),
        ({"tools": [{"type": "function", "function": {"name": "flyaway"}}]}, "flyaway"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool_call_id"),
        ({"messages": [{"role": "user", "content": "€"}]}, "€"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "get", "arguments": "[1]"}}]}
                ]
            },
            "JSON object",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_body_is_400_and_names_the_key(body, named):
    async def scenario():
        async with Served(Message("assistant", "ok")) as served:
            response = await served.post(**body)
            error = response.json()["error"]
            assert response.status_code == 400
            assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "malformed_request", None)
            assert named in error["message"]
            assert served.log.num_rows == 0

    run(scenario)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"functions": [{}]}, "unknown key 'functions'"),
        ({"no_such_key": {"é": 1}}, "unknown key 'no_such_key'"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WIRE_TOOL, {"type": "web_search"}]}, "a tool of type 'web_search'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_done_is_recorded_and_said_and_the_call_answered(body, named):
    async def scenario():
        async with Served(Message("assistant", "ok")) as served:
            response = await served.post(**body)
            assert response.status_code == 200
            assert named in response.headers["x-trunkline-not-honoured"]
            (completion,) = served.gateway.episode_record("e").completions
            assert named in completion.facts.not_honoured[0]

    run(scenario)


def test_a_body_that_is_not_json_is_400_and_an_unknown_path_404():
    async def scenario():
        async with Served(Message("assistant", "ok")) as served:
            for content in (b"{", b"[]", b"\xff", b"[" * 100_000):
                assert (await served.http.post("/v1/chat/completions", content=content)).status_code == 400
            missing = await served.http.get("/v1/nothing")
            assert (missing.status_code, missing.json()["error"]["code"]) == (404, "no_such_route")
            assert (await served.http.get("/healthz")).json() == {"status": "ok"}

    run(scenario)


def test_keys_that_change_nothing_are_accepted():
    async def scenario():
        async with Served(Message("assistant", "ok")) as served:
            harmless = {"user": "u", "metadata": {"a": "b"}, "store": False, "parallel_tool_calls": True, "reasoning_effort": None}
            neutral = {"logit_bias": {}, "n": 1, "presence_penalty": 0, "response_format": {"type": "text"}, "stream": False}
            overridden = {"stop": ["x"], "temperature": 0.2, "seed": 1, "tool_choice": "auto"}
            response = await served.post(**harmless, **neutral, **overridden)
            assert response.status_code == 200

    run(scenario)


def test_no_answer_leaves_before_its_record_is_durable():
    async def scenario():
        async with Served(Message("assistant", "ok")) as served:
            served.log.open.clear()
            answer = asyncio.create_task(served.post())
            await asyncio.sleep(0.1)
            assert served.log.num_rows == 1
            assert not answer.done()
            served.log.open.set()
            assert (await answer).status_code == 200
            served.log.broken = True
            refused = await served.post()
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")

    run(scenario)


def test_a_client_that_disconnects_is_recorded():
    async def scenario():
        async with Served(Message("assistant", "ok")) as served:
            served.log.open.clear()
            with pytest.raises(httpx.ReadTimeout):
                await served.http.post("/v1/chat/completions", json={"messages": QUESTION}, timeout=0.1)
            served.log.open.set()
            await served.gateway.close_session(served.opened.session_id)
            assert len(served.gateway.episode_record("e").completions) == served.log.num_rows == 1

    run(scenario)


def test_the_tool_loop_runs_calls_and_returns_the_answer():
    async def scenario():
        async with Served(CALL_PERU, Message("assistant", "1285216")) as served, shared_http() as http:
            tools = PeruTools()
            served.engine.failures = [EngineUnavailable("starting")]  # waited out
            assert await ToolLoop(http, LoopSettings(4)).run(served.assignment(tools)) == "1285216"
            assert tools.calls == [("get", {"entity": "Peru"})]

    run(scenario)


def test_the_tool_loop_ends_without_an_answer_when_turns_or_budget_are_spent():
    async def scenario():
        async with Served(CALL_PERU, budget=SessionBudget(max_calls=3)) as served:
            tools = PeruTools()
            assert await ToolLoop(None, LoopSettings(2)).run(served.assignment(tools)) == ""
            assert await ToolLoop(None, LoopSettings(9)).run(served.assignment(tools)) == ""
            assert len(tools.calls) == 3

    run(scenario)


def test_the_tool_loop_names_any_other_refusal():
    async def scenario():
        async with Served(Message("assistant", "ok")) as served:
            with pytest.raises(AgentError, match="401"):
                await ToolLoop(None, LoopSettings(2)).run(served.assignment(PeruTools(), key="wrong"))
            gone = dataclasses.replace(served.assignment(PeruTools()), base_url=f"{served.root}/s/{served.opened.secret}/v1")
        with pytest.raises(AgentError, match="no answer") as caught:
            await ToolLoop(None, LoopSettings(2)).run(gone)
        assert served.opened.secret not in str(caught.value)

    run(scenario)


def test_the_operators_socket_opens_lists_pauses_and_closes_without_telling_secrets(tmp_path):
    async def scenario():
        async with Served(Message("assistant", "ok")) as served:
            path = tmp_path / "control.sock"
            control = await serve_uds(build_control_app(served.gateway), path)
            assert path.stat().st_mode & 0o777 == 0o600
            transport = httpx.AsyncHTTPTransport(uds=str(path))
            async with httpx.AsyncClient(transport=transport, base_url="http://control") as http:
                body = {"episode_id": "f", "seed": 3, "hold": {"temperature": 0.0}, "budget": {"max_calls": 2}}
                opened = (await http.post("/sessions", json=body)).json()
                assert (await http.post("/sessions", json={"episode_id": "f"})).status_code == 400
                listed = await http.get("/sessions")
                assert {one["episode_id"] for one in listed.json()} == {"e", "f"}
                assert opened["secret"] not in listed.text
                before = served.gateway.active_time()
                assert [(await http.post(path)).status_code for path in ("/pause", "/resume")] == [204, 204]
                assert served.gateway.active_time() > before
                assert (await http.delete(f"/sessions/{opened['session_id']}")).status_code == 204
                assert (await http.delete(f"/sessions/{opened['session_id']}")).status_code == 401
            assert (await served.http.post("/sessions", json=body)).status_code == 404  # not on the agents' port
            await control.stop()
            assert not path.exists()

    run(scenario)


def test_a_port_in_use_is_named_with_what_to_do():
    async def scenario():
        async with Served(Message("assistant", "ok")) as served:
            with pytest.raises(ConfigError, match=f"port {served.serving.port} .* in use; choose another"):
                await serve_port(build_app(served.gateway), port=served.serving.port)

    run(scenario)


def test_an_answer_waits_for_no_acknowledgement():
    async def scenario():
        async with Served(Message("assistant", "ok")) as served:
            await served.http.get("/healthz")
            (connection,) = served.serving.server.server_state.connections
            assert connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(scenario)


def test_importing_gateway_and_agents_leaves_torch_out():
    import subprocess
    import sys

    gateway = ("app", "control", "packaged")
    modules = ", ".join(
        [*(f"trunkline.gateway.{name}" for name in gateway), "trunkline.agents.boxed_command", "trunkline.agents.unsafe_command"]
    )
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'renderers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
