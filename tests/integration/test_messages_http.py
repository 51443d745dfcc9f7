"""Anthropic's Messages over real sockets: the official client, sync and async, against the real gateway and a scripted engine."""

import asyncio
import dataclasses
import json
import threading

import anthropic
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.engines import NoLog, QuietEngine, spoken
from trunkline.asgi import serve_port
from trunkline.errors import EngineError, EngineUnavailable
from trunkline.gateway.app import build_app
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.packaged import load_packaged_renderer
from trunkline.gateway.sampling import SamplingHold
from trunkline.gateway.sessions import SessionBudget
from trunkline.types import Message, ToolCall, ToolSpec

GET = ToolSpec("get", "One fact", {"type": "object", "properties": {"entity": {"type": "string"}}, "required": ["entity"]})
TOOL = {"name": "get", "description": "One fact", "input_schema": dict(GET.parameters)}
THINK_AND_CALL = Message("assistant", "I look.", (ToolCall("", "get", '{"entity": "Peru"}'),), reasoning="Where is it said?")
ANSWER = Message("assistant", "1285216 km²", reasoning="So that is it.")
QUESTION = [{"role": "user", "content": "area of Peru?"}]


def byte_level_tokenizer():
    alphabet = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    backend.add_tokens(["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")


@pytest.fixture(scope="module")
def renderer():
    """Qwen3's format, which has a place for thinking."""
    return load_packaged_renderer("qwen3", byte_level_tokenizer())


class ScriptedEngine(QuietEngine):
    """Says `replies` in turn, the last one for ever; raises `failure` while it is set."""

    def __init__(self, renderer, replies):
        self.renderer = renderer
        self.replies = list(replies)
        self.failure = None

    async def generate(self, request):
        if self.failure is not None:
            raise self.failure
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return spoken(self.renderer, reply, request, (GET,))


class Served:
    """A gateway on a free port in a thread of its own, so that the sync client can be used as it is used."""

    def __init__(self, renderer, *replies, budget=SessionBudget(), keep_alive_s=5.0):
        self.engine = ScriptedEngine(renderer, replies)
        self.gateway = Gateway(self.engine, renderer, NoLog(), model_name="tiny")
        self.opened = self.gateway.open_session(episode_id="e", seed=1, hold=SamplingHold(max_tokens=512), budget=budget)
        self.keep_alive_s = keep_alive_s

    def __enter__(self):
        self.loop, is_up = asyncio.new_event_loop(), threading.Event()

        async def serve():
            self.serving = await serve_port(build_app(self.gateway, keep_alive_s=self.keep_alive_s))
            is_up.set()

        def live():
            self.loop.create_task(serve())
            self.loop.run_forever()

        self.thread = threading.Thread(target=live)
        self.thread.start()
        assert is_up.wait(20)
        self.root = f"http://127.0.0.1:{self.serving.port}"
        return self

    def __exit__(self, *error):
        asyncio.run_coroutine_threadsafe(self.serving.stop(), self.loop).result(20)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(20)
        self.loop.close()

    def client(self, kind=anthropic.Anthropic, **options):
        return kind(**{"base_url": self.root, "api_key": self.opened.secret, "max_retries": 0, **options})

    @property
    def completions(self):
        return self.gateway.episode_record("e").completions


def ask(client, messages=QUESTION, **keys):
    return client.messages.create(**{"model": "claude", "max_tokens": 400, "messages": messages, **keys})


def stream(client, messages=QUESTION, **keys):
    with client.messages.stream(**{"model": "claude", "max_tokens": 400, "messages": messages, **keys}) as events:
        return events.get_final_message()


def told(message):
    """What two answers of the same words have in common."""
    whole = message.to_dict()
    del whole["id"]
    for block in whole["content"]:
        block.pop("signature", None)
        block.pop("id", None)
    return whole


def with_result(first, words="1285216"):
    (call,) = (block for block in first.content if block.type == "tool_use")
    return [
        *QUESTION,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": words}]},
    ]


@pytest.mark.parametrize("say", [ask, stream])
def test_conversation_with_thinking_and_a_tool_continues_its_tokens(renderer, say):
    with Served(renderer, THINK_AND_CALL, ANSWER) as served:
        client = served.client()
        first = say(client, tools=[TOOL])
        assert [block.type for block in first.content] == ["thinking", "text", "tool_use"]
        assert (first.content[0].thinking, first.content[1].text, first.content[2].input) == (
            "Where is it said?",
            "I look.",
            {"entity": "Peru"},
        )
        assert (first.stop_reason, first.model) == ("tool_use", "claude")
        second = say(client, with_result(first), tools=[TOOL])
        assert (second.content[-1].text, second.stop_reason) == ("1285216 km²", "end_turn")
        one, two = served.completions
        assert (two.parent_id, two.facts.wire, two.facts.lineage) == (one.completion_id, "messages", "extension")
        assert (second.usage.input_tokens, second.usage.output_tokens) == (len(two.prompt_ids), two.num_sampled)


def test_async_client_reads_the_same_json_and_stream(renderer):
    async def scenario(served):
        async with served.client(anthropic.AsyncAnthropic) as client:
            first = await ask(client, tools=[TOOL])
            async with client.messages.stream(model="claude", max_tokens=400, messages=QUESTION, tools=[TOOL]) as events:
                streamed = await events.get_final_message()
        assert told(streamed) == told(first)

    with Served(renderer, THINK_AND_CALL) as served:
        asyncio.run(asyncio.wait_for(scenario(served), 20))


def test_official_tool_loop_runs_to_its_answer(renderer):
    asked = []

    @anthropic.beta_tool
    def get(entity: str) -> str:
        """One fact"""
        asked.append(entity)
        return "1285216"

    with Served(renderer, THINK_AND_CALL, ANSWER) as served:
        runner = served.client().beta.messages.tool_runner(model="claude", max_tokens=400, messages=QUESTION, tools=[get])
        assert runner.until_done().content[-1].text == "1285216 km²"
        assert asked == ["Peru"]
        assert [one.facts.lineage for one in served.completions] == ["first", "extension"]


def test_hidden_thinking_is_put_back_where_the_client_cannot_send_it(renderer):
    with Served(renderer, THINK_AND_CALL, ANSWER) as served:
        client, off = served.client(), {"type": "disabled"}
        first = ask(client, tools=[TOOL], thinking=off)
        assert [block.type for block in first.content] == ["text", "tool_use"]
        ask(client, with_result(first), tools=[TOOL], thinking=off)
        one, two = served.completions
        assert two.parent_id == one.completion_id
        assert two.prompt_ids[: two.num_shared] == one.prompt_ids + one.generation.token_ids


def test_thinking_that_the_client_took_out_stays_out(renderer):
    with Served(renderer, THINK_AND_CALL, ANSWER) as served:
        client = served.client()
        history = with_result(ask(client, tools=[TOOL]))
        history[1]["content"] = history[1]["content"][1:]
        ask(client, history, tools=[TOOL])
        assert (served.completions[1].parent_id, served.completions[1].facts.lineage) == (None, "dropped_reasoning")


def test_requests_in_the_manner_of_claude_code_extend_one_another(renderer):
    """Seen of 2.1.197: a bill that changes, marks that move, instructions as a turn, and thinking kept only of the model it asked."""
    mark = {"cache_control": {"type": "ephemeral"}}
    keys = {
        "tools": [TOOL],
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"},
        "extra_body": {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
    }
    start = [
        {"role": "user", "content": [{"type": "text", "text": "<system-reminder>\n"}, {"type": "text", "text": "area of Peru?"}]},
        {"role": "system", "content": "Agents to delegate to: none"},
    ]

    def system(bill, **marked):
        return [
            {"type": "text", "text": f"x-anthropic-billing-header: cch={bill};"},
            {"type": "text", "text": "You are an agent.", **marked},
        ]

    with Served(renderer, THINK_AND_CALL, ANSWER) as served:
        client = served.client()
        first = stream(client, start, system=system("00a1", **mark), **keys)
        assert first.model == "claude"
        results = with_result(first)[-1]
        results["content"][0].update(mark)
        stream(client, [*start, {"role": "assistant", "content": first.content}, results], system=system("00b2"), **keys)
        assert [one.facts.lineage for one in served.completions] == ["first", "extension"]
        assert served.completions[1].facts.not_honoured == ("output_config.effort 'high'",)


def test_stop_sequence_and_token_limit_end_an_answer(renderer):
    with Served(renderer, ANSWER) as served:
        client = served.client()
        stopped = ask(client, stop_sequences=["5216"])
        assert (stopped.stop_reason, stopped.stop_sequence, stopped.content[-1].text) == ("stop_sequence", "5216", "128")
        assert ask(client, max_tokens=3).stop_reason == "max_tokens"


def test_tokens_are_counted_without_a_call(renderer):
    with Served(renderer, ANSWER) as served:
        client = served.client()
        counted = client.messages.count_tokens(model="claude", messages=QUESTION, system="be brief", tools=[TOOL])
        assert served.completions == ()
        assert ask(client, system="be brief", tools=[TOOL]).usage.input_tokens == counted.input_tokens


def test_what_is_not_honoured_is_recorded_and_said(renderer):
    with Served(renderer, ANSWER) as served:
        raw = served.client().messages.with_raw_response.create(
            model="claude",
            max_tokens=400,
            messages=QUESTION,
            extra_body={"top_k": 5},
            tool_choice={"type": "any"},
            tools=[TOOL, {"type": "web_search_20250305", "name": "web_search"}],
        )
        words = ("top_k 5", "tool_choice 'any': calls cannot be forced", "a tool of type 'web_search_20250305': it is not offered")
        assert served.completions[0].facts.not_honoured == words
        assert raw.headers["x-trunkline-not-honoured"] == "; ".join(words)


@pytest.mark.parametrize("options", [{"auth_token": "the secret", "api_key": None}, {"base_url": "the path", "api_key": "any"}])
def test_session_is_found_by_bearer_token_or_path(renderer, options):
    with Served(renderer, ANSWER) as served:
        places = {"the secret": served.opened.secret, "the path": f"{served.root}/s/{served.opened.secret}"}
        client = served.client(**{key: places.get(value, value) for key, value in options.items()})
        assert ask(client).content[-1].text == "1285216 km²"


def test_failures_are_raised_as_the_clients_own_errors(renderer):
    with Served(renderer, ANSWER, budget=dataclasses.replace(SessionBudget(), max_calls=2)) as served:
        client = served.client()
        with pytest.raises(anthropic.AuthenticationError):
            ask(served.client(api_key="wrong"))
        with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\].content\[0\]: a tool_use block"):
            ask(client, [{"role": "user", "content": [{"type": "tool_use", "id": "a", "name": "get", "input": {}}]}])
        served.engine.failure = EngineUnavailable("the engine is down")
        with pytest.raises(anthropic.InternalServerError, match="overloaded_error"):
            ask(client)
        served.engine.failure = None
        ask(client)
        with pytest.raises(anthropic.RateLimitError):
            for _ in range(3):
                ask(client)
        with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
            client.post("/v1/messages/batches", cast_to=object, body={})


def test_failure_after_the_stream_began_is_an_error_event(renderer):
    class Late(ScriptedEngine):
        async def generate(self, request):
            await asyncio.sleep(0.3)
            raise EngineError("the engine gave up")

    with Served(renderer, ANSWER, keep_alive_s=0.05) as served:
        served.engine.__class__ = Late
        with pytest.raises(anthropic.APIStatusError, match="the engine gave up"):
            stream(served.client())


def test_client_retries_an_engine_that_comes_back(renderer):
    with Served(renderer, ANSWER) as served:
        served.engine.failure = EngineUnavailable("restarting")
        threading.Timer(0.5, lambda: setattr(served.engine, "failure", None)).start()
        assert ask(served.client(max_retries=3)).content[-1].text == "1285216 km²"
        assert len(served.completions) == 1


def test_stream_on_the_wire_names_every_event(renderer):
    with Served(renderer, ANSWER) as served:
        raw = served.client().messages.with_raw_response.create(model="claude", max_tokens=400, messages=QUESTION, stream=True)
        lines = [line for line in raw.http_response.iter_lines() if line]
        for named, data in zip(lines[::2], lines[1::2], strict=True):
            assert named.removeprefix("event: ") == json.loads(data.removeprefix("data: "))["type"]
