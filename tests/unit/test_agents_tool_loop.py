"""How the white-box loop waits for an unavailable model. Its conversations are tested over the real gateway."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.agents import tool_loop
from trunkline.agents.loop_settings import LoopSettings
from trunkline.agents.tool_loop import MAX_RETRIES, ToolLoop
from trunkline.asgi import serve_port
from trunkline.errors import AgentError, EngineUnavailable
from trunkline.protocols import Assignment
from trunkline.types import Message

ANSWER = {"choices": [{"message": {"role": "assistant", "content": "yes"}}]}


class NoTools:
    specs = ()

    async def call(self, name, arguments):
        return "no such tool"


def run_against(answers, monkeypatch):
    """The loop's answer, and the seconds that it waited, against a server that gives `answers` in turn."""
    waits = []

    async def reply(request):
        return answers.pop(0)

    async def go():
        serving = await serve_port(Starlette(routes=[Route("/v1/chat/completions", reply, methods=["POST"])]))
        asleep = asyncio.sleep

        async def sleep(seconds):
            waits.append(seconds)
            await asleep(0)

        assignment = Assignment((Message("user", "?"),), NoTools(), f"http://127.0.0.1:{serving.port}/v1", "key", "tiny")
        try:
            with monkeypatch.context() as patch:
                patch.setattr(tool_loop, "asyncio", SimpleNamespace(sleep=sleep))  # the loop's own waits only
                return await ToolLoop(None, LoopSettings(2)).run(assignment)
        finally:
            await serving.stop()

    return asyncio.run(go()), waits


def busy(**headers):
    return Response(status_code=503, headers=headers)


def test_it_waits_as_long_as_the_server_says_and_longer_each_time(monkeypatch):
    unavailable = [busy(**{"retry-after": "2"}), busy(), busy(), busy()]
    answer, waits = run_against([*unavailable, JSONResponse(ANSWER)], monkeypatch)
    assert (answer, waits) == ("yes", [2.0, 0.2, 0.4, 0.8])


def test_a_model_that_stays_away_is_not_the_agents_failure(monkeypatch):
    with pytest.raises(EngineUnavailable):
        run_against([busy() for _ in range(MAX_RETRIES + 1)], monkeypatch)


def test_an_answer_that_is_no_completion_is_named(monkeypatch):
    with pytest.raises(AgentError, match="not a chat completion"):
        run_against([JSONResponse({"choices": []})], monkeypatch)


def test_sub_agents_of_one_turn_work_at_once_and_answer_in_order():
    calls = [{"id": f"d{task}", "function": {"name": "delegate", "arguments": json.dumps({"task": task})}} for task in ("a", "b")]
    told = []

    async def go():
        both = asyncio.Barrier(2)

        async def reply(request):
            messages = (await request.json())["messages"]
            if messages[-1]["content"] == "?":
                return JSONResponse({"choices": [{"message": {"role": "assistant", "tool_calls": calls}}]})
            if messages[-1]["role"] == "user":
                await asyncio.wait_for(both.wait(), 30.0)  # it breaks if they come one after another
                return JSONResponse({"choices": [{"message": {"role": "assistant", "content": f"done {messages[-1]['content']}"}}]})
            told.extend((message["tool_call_id"], message["content"]) for message in messages if message["role"] == "tool")
            return JSONResponse(ANSWER)

        serving = await serve_port(Starlette(routes=[Route("/v1/chat/completions", reply, methods=["POST"])]))
        assignment = Assignment((Message("user", "?"),), NoTools(), f"http://127.0.0.1:{serving.port}/v1", "key", "tiny")
        try:
            return await ToolLoop(None, LoopSettings(4, depth=1, max_sub_agents=2)).run(assignment)
        finally:
            await serving.stop()

    assert asyncio.run(go()) == "yes"
    assert told == [("da", "done a"), ("db", "done b")]
