"""Chat Completions beyond one plain answer, by OpenAI's own client: samples, stop strings, log-probabilities, thinking, retries."""

from __future__ import annotations

import asyncio
import random

import httpx
import openai
import pytest

from tests.chat_formats import family
from trunkline.asgi import serve_port
from trunkline.errors import UnknownSession
from trunkline.gateway.app import build_app
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.sampling import SamplingHold
from trunkline.gateway.sessions import SessionBudget
from trunkline.gateway.wire import Ask
from trunkline.types import Generation, Message, PolicyVersion, ToolCall, VersionSpan

THINKS, PLAIN = family("qwen3"), family("kimi-k2")  # Qwen3 leaves its thinking out once the user speaks again
QUESTION = [{"role": "user", "content": "area of Peru?"}]
GRAMMAR = {"type": "custom", "custom": {"name": "patch", "description": "Free text", "format": {"type": "text"}}}


class SeededEngine:
    """Says one of `replies` by the request's seed, with log-probabilities of its own; holds requests back while `gate` is closed."""

    def __init__(self, renderer, *replies):
        self.renderer, self.replies = renderer, replies
        self.requests, self.said = [], []
        self.gate = asyncio.Event()
        self.gate.set()

    async def generate(self, request):
        self.requests.append(request)
        await self.gate.wait()
        reply = random.Random(request.sampling.seed).choice(self.replies)
        ids = self.renderer.reply((Message("user", "?"), reply), ())[: request.sampling.max_tokens]
        self.said.append(ids)
        finish = "stop" if ids[-1] in request.sampling.stop_token_ids else "length"
        logprobs = tuple(-0.01 * place for place in range(len(ids)))
        return Generation(ids, logprobs, finish, (VersionSpan(0, len(ids), PolicyVersion(1, 0)),))

    async def abort(self, request_ids):
        self.gate.set()

    async def pause(self):
        self.gate.clear()

    async def resume(self):
        self.gate.set()


class MemoryLog:
    """Every row."""

    def __init__(self):
        self.completions = []

    async def record_completion(self, episode_id, completion, messages):
        self.completions.append(completion)


class Served:
    """A gateway on a free port, one open session, and OpenAI's client of it."""

    def __init__(self, *replies, speaks=PLAIN, **budget):
        self.renderer, self.tokenizer = speaks
        self.engine, self.log = SeededEngine(self.renderer, *replies), MemoryLog()
        self.gateway = Gateway(self.engine, self.renderer, self.log, model_name="tiny")
        budget = SessionBudget(**budget)
        self.opened = self.gateway.open_session(episode_id="e", seed=1, hold=SamplingHold(max_tokens=999), budget=budget)

    async def __aenter__(self):
        self.serving = await serve_port(build_app(self.gateway))
        self.root = f"http://127.0.0.1:{self.serving.port}"
        self.client = openai.AsyncOpenAI(base_url=f"{self.root}/v1", api_key=self.opened.secret, max_retries=0)
        self.http = httpx.AsyncClient(base_url=self.root, headers={"x-api-key": self.opened.secret}, trust_env=False)
        return self

    async def __aexit__(self, *error):
        await self.http.aclose()
        await self.client.close()
        await self.serving.stop()

    async def create(self, **body):
        return await self.client.chat.completions.create(**{"model": "x", "messages": QUESTION, **body})


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario(), 30))


def say(text, **more):
    return Message("assistant", text, **more)


def test_n_samples_are_n_records_of_one_context_with_seeds_of_their_own():
    async def scenario():
        async with Served(*(say(f"answer {number}") for number in range(9))) as served:
            answer = await served.create(n=5)
            assert [choice.index for choice in answer.choices] == [0, 1, 2, 3, 4]
            assert len({choice.message.content for choice in answer.choices}) > 1
            record = served.log.completions
            assert len({one.sampling.seed for one in record}) == len(record) == 5
            assert {one.prompt_ids for one in record} == {record[0].prompt_ids}
            assert answer.usage.prompt_tokens == len(record[0].prompt_ids)
            assert answer.usage.completion_tokens == sum(one.num_sampled for one in record)
            chosen = answer.choices[3].message
            follow = await served.create(messages=[*QUESTION, chosen, {"role": "user", "content": "sure?"}])
            parent = next(one for one in record if one.completion_id == served.log.completions[-1].parent_id)
            assert served.renderer.parse(parent.generation.token_ids, ()).message.content == chosen.content
            assert follow.choices[0].finish_reason == "stop"

    run(scenario)


def test_more_samples_than_the_budget_has_calls_are_refused_and_nothing_is_sampled():
    async def scenario():
        async with Served(say("a"), max_calls=3) as served:
            with pytest.raises(openai.RateLimitError, match="3 calls"):
                await served.create(n=4)
            assert served.engine.requests == []
            assert len((await served.create(n=3)).choices) == 3

    run(scenario)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_stop_string_ends_what_is_read_and_what_is_trained_and_the_next_turn_goes_on_from_there(is_streamed):
    async def scenario():
        async with Served(say("I look.\nObservation: made up, and more")) as served:
            answer = await text_of(served, stop=["Observation:", "zzz"], stream=is_streamed)
            assert answer == ("I look.\n", "stop")
            (first,) = served.log.completions
            assert served.tokenizer.decode(first.generation.token_ids).endswith("Observation:")
            assert first.facts.num_discarded == len(served.engine.said[0]) - first.num_sampled
            assert first.drop_reason is None
            history = [*QUESTION, {"role": "assistant", "content": "I look."}, {"role": "user", "content": "Observation: 7"}]
            await served.create(messages=history)
            second = served.log.completions[1]
            assert (second.parent_id, second.facts.lineage) == (first.completion_id, "extension")
            assert served.tokenizer.decode(second.prompt_ids).count("Observation:") == 2  # as sampled, then as told

    run(scenario)


async def text_of(served, **body):
    if not body.get("stream"):
        choice = (await served.create(**body)).choices[0]
        return choice.message.content, choice.finish_reason
    chunks = [chunk async for chunk in await served.create(**body)]
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks), chunks[-1].choices[0].finish_reason


def test_logprobs_are_those_that_the_engine_gave_token_by_token():
    async def scenario():
        async with Served(say("é is two bytes")) as served:
            answer = await served.create(logprobs=True)
            content = answer.choices[0].logprobs.content
            (record,) = served.log.completions
            assert tuple(one.logprob for one in content) == record.generation.logprobs
            assert len(content) == record.num_sampled
            stream = [chunk async for chunk in await served.create(logprobs=True, stream=True)]
            streamed = [one for chunk in stream if chunk.choices[0].logprobs for one in chunk.choices[0].logprobs.content]
            assert [one.logprob for one in streamed] == [one.logprob for one in content]

    run(scenario)


def test_thinking_is_shown_apart_and_may_come_back_or_not():
    async def scenario():
        call = (ToolCall("", "get", '{"entity": "Peru"}'),)
        tool = {
            "type": "function",
            "function": {"name": "get", "parameters": {"type": "object", "properties": {"entity": {"type": "string"}}}},
        }
        async with Served(say("", reasoning="Which one?", tool_calls=call), speaks=THINKS) as served:
            message = (await served.create(tools=[tool])).choices[0].message
            assert (message.reasoning_content, message.content) == ("Which one?", None)
            result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "7"}
            bare = {"role": "assistant", "tool_calls": [one.model_dump() for one in message.tool_calls]}
            await served.create(tools=[tool], messages=[*QUESTION, bare, result])
            await served.create(tools=[tool], messages=[*QUESTION, {**bare, "reasoning_content": "Which one?"}, result])
            await served.create(tools=[tool], messages=[*QUESTION, {**bare, "reasoning_content": "Another thought."}, result])
            _, bare_call, kept, changed = served.log.completions
            assert bare_call.prompt_ids == kept.prompt_ids
            assert (bare_call.facts.lineage, kept.facts.lineage) == ("extension", "repeat")
            assert (changed.parent_id, changed.facts.num_foreign) == (None, 1)

    run(scenario)


@pytest.mark.parametrize(("arguments", "text"), [('{"input": "*** Begin"}', "*** Begin"), ('{"patch": 7}', '{"patch": 7}')])
def test_a_custom_tool_is_called_with_free_text_and_its_echo_is_the_same_turn(arguments, text):
    async def scenario():
        call = (ToolCall("", "patch", arguments),)
        async with Served(say("", tool_calls=call)) as served:
            message = (await served.create(tools=[GRAMMAR])).choices[0].message
            (made,) = message.tool_calls
            assert (made.type, made.custom.name, made.custom.input) == ("custom", "patch", text)
            result = {"role": "tool", "tool_call_id": made.id, "content": "done"}
            await served.create(tools=[GRAMMAR], messages=[*QUESTION, message, result])
            assert served.log.completions[1].facts.lineage == "extension"

    run(scenario)


def test_what_is_not_honoured_is_recorded_up_to_a_bound():
    async def scenario():
        async with Served(say("a")) as served:
            await served.http.post("/v1/chat/completions", json={"messages": QUESTION, **{f"key{number}": 1 for number in range(999)}})
            words = served.log.completions[0].facts.not_honoured
            assert (len(words), words[-1]) == (33, "and 967 more")

    run(scenario)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_who_asks_again_after_a_broken_connection_gets_the_answer_that_was_sampled(is_streamed):
    async def scenario():
        async with Served(*(say(f"answer {number}") for number in range(9))) as served:
            served.engine.gate.clear()
            body = {"model": "x", "messages": QUESTION, "stream": is_streamed}
            for _ in range(2):  # once while it is sampled, once more
                with pytest.raises(httpx.ReadTimeout):
                    await served.http.post("/v1/chat/completions", json=body, timeout=0.2)
            served.engine.gate.set()
            await asyncio.sleep(0.1)
            again = await served.http.post("/v1/chat/completions", json=body)
            assert again.status_code == 200
            assert len(served.log.completions) == len(served.engine.requests) == 1
            sampled = served.tokenizer.decode(served.log.completions[0].generation.token_ids)
            assert sampled.partition("<|im_end|>")[0].strip()[-1] in again.text
            assert served.gateway.counts() == {"num_redelivered": 2, "num_unread": 0}
            await served.http.post("/v1/chat/completions", json=body)  # asked anew: sampled anew
            assert [one.facts.lineage for one in served.log.completions] == ["first", "repeat"]

    run(scenario)


def test_an_answer_that_nobody_asks_for_again_is_counted_when_its_session_ends():
    async def scenario():
        async with Served(say("a")) as served:
            served.engine.gate.clear()
            with pytest.raises(httpx.ReadTimeout):
                await served.http.post("/chat/completions", json={"messages": QUESTION}, timeout=0.2)
            served.engine.gate.set()
            await asyncio.sleep(0.1)
            session = served.gateway.session(served.opened.secret)
            await served.gateway.close_session(served.opened.session_id)
            with pytest.raises(UnknownSession):
                served.gateway.start(session, Ask((Message("user", "area of Peru?"),)))
            assert served.gateway.counts() == {"num_redelivered": 0, "num_unread": 1}
            assert len(served.log.completions) == 1

    run(scenario)


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/chat/completions", "/s/SECRET/v1/chat/completions", "/s/SECRET/chat/completions"]
)
def test_every_route_answers_with_and_without_v1(path):
    async def scenario():
        async with Served(say("a")) as served:
            path_with = path.replace("SECRET", served.opened.secret)
            headers = {} if "SECRET" in path else {"authorization": f"Bearer {served.opened.secret}"}
            async with httpx.AsyncClient(base_url=served.root, trust_env=False) as http:
                assert (await http.post(path_with, json={"messages": QUESTION}, headers=headers)).status_code == 200
                assert (await http.get(path_with.replace("chat/completions", "models/any/name"))).json()["id"] == "tiny"

    run(scenario)
