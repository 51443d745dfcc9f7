"""The Responses API over real HTTP: OpenAI's own SDK against the real gateway, with a real model family's chat format."""

import asyncio
import json

import httpx
import openai
import pytest
from openai.types.responses import Response
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.engines import NoLog, QuietEngine, spoken
from trunkline.asgi import serve_port
from trunkline.errors import EngineUnavailable
from trunkline.gateway.app import build_app
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.packaged import load_packaged_renderer
from trunkline.gateway.sampling import SamplingHold
from trunkline.gateway.sessions import SessionBudget
from trunkline.types import Message, ToolCall, ToolSpec

MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
PARAMETERS = {"type": "object", "properties": {"entity": {"type": "string"}}, "required": ["entity"], "additionalProperties": False}
GET = {"type": "function", "name": "get", "description": "One fact", "parameters": PARAMETERS, "strict": True}
APPLY = {"type": "custom", "name": "apply", "description": "Applies a patch"}
SPECS = tuple(ToolSpec(name, "", {"type": "object", "properties": {}}) for name in ("get", "apply"))
CALL_PERU = Message("assistant", "Let me see.", (ToolCall("", "get", '{"entity": "Peru"}'),), reasoning="A fact is needed.")
TWO_CALLS = Message("assistant", "", tuple(ToolCall("", "get", json.dumps({"entity": one})) for one in ("Peru", "Chile")))
AREA = Message("assistant", "1,285,220 km²", reasoning="That is it.")
PATCH = Message("assistant", "", (ToolCall("", "apply", '{"input": "*** Begin\\n+é\\n"}'),))
OK = Message("assistant", "ok")


def qwen3():
    """The format on a vocabulary of bytes."""
    alphabet = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens(MARKS[:3])
    backend.add_tokens([*MARKS, "<think>", "</think>"])
    return load_packaged_renderer("qwen3", PreTrainedTokenizerFast(tokenizer_object=backend))


RENDERER = qwen3()


class ScriptedEngine(QuietEngine):
    """Says `replies` in turn, the last one for ever; raises what `failures` holds first; waits for `gate`."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.failures = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def generate(self, request):
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return spoken(RENDERER, reply, request, SPECS)


class Served:
    """A gateway on a free port, with one open session."""

    def __init__(self, *replies, max_calls=16, keep_alive_s=60.0):
        self.engine, self.keep_alive_s = ScriptedEngine(*replies), keep_alive_s
        self.gateway = Gateway(self.engine, RENDERER, NoLog(), model_name="tiny")
        budget = SessionBudget(max_calls=max_calls)
        self.opened = self.gateway.open_session(episode_id="e", seed=1, hold=SamplingHold(max_tokens=4096), budget=budget)

    async def __aenter__(self):
        self.serving = await serve_port(build_app(self.gateway, keep_alive_s=self.keep_alive_s))
        self.client = openai.AsyncOpenAI(base_url=f"{self.root}/v1", api_key=self.opened.secret, max_retries=0)
        return self

    async def __aexit__(self, *error):
        await self.client.close()
        await self.serving.stop()

    @property
    def root(self):
        return f"http://127.0.0.1:{self.serving.port}"

    @property
    def completions(self):
        return self.gateway.episode_record("e").completions

    async def create(self, *items, **options):
        return await self.client.responses.create(
            **{"model": "gpt", "input": list(items) or "area of Peru?", "tools": [GET, APPLY], **options}
        )


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario(), 30))


def output_of(item, text):
    kind = "custom_tool_call_output" if item.type == "custom_tool_call" else "function_call_output"
    return {"type": kind, "call_id": item.call_id, "output": text}


def test_an_echo_of_the_items_continues_the_tokens_that_were_sampled():
    async def scenario():
        async with Served(CALL_PERU, TWO_CALLS, PATCH, AREA) as served:
            items = [{"role": "user", "content": "area of Peru?"}]
            for num_calls in (1, 2, 1, 0):
                answer = await served.create(*items)
                Response.model_validate(answer.model_dump(exclude_unset=True), strict=True)
                calls = [item for item in answer.output if item.type.endswith("_call")]
                assert len(calls) == num_calls
                items += [*answer.output, *(output_of(call, "1") for call in calls)]
            assert answer.output_text == AREA.content
            assert [one.facts.lineage for one in served.completions] == ["first", "extension", "extension", "extension"]
            assert [one.facts.wire for one in served.completions] == ["responses"] * 4
            for earlier, later in zip(served.completions, served.completions[1:], strict=False):
                assert later.parent_id == earlier.completion_id
                known = earlier.prompt_ids + earlier.generation.token_ids
                assert later.prompt_ids[: len(known)] == known

    run(scenario)


@pytest.mark.parametrize("kept", ["encrypted", "reference", "no_ids"])
def test_reasoning_continues_as_sampled_however_the_client_keeps_it(kept):
    async def scenario():
        async with Served(CALL_PERU, AREA) as served:
            question = {"role": "user", "content": "area of Peru?"}
            first = await served.create(question, include=["reasoning.encrypted_content"], store=False)
            echoed = [item.model_dump(exclude_unset=True) for item in first.output]
            if kept == "encrypted":
                del echoed[0]["content"]
            elif kept == "reference":
                echoed = [{"type": "item_reference", "id": item["id"]} for item in echoed]
            else:
                echoed = [{key: value for key, value in item.items() if key != "id"} for item in echoed]
            await served.create(question, *echoed, output_of(first.output[-1], "1"), include=["reasoning.encrypted_content"])
            assert served.completions[1].facts.lineage == "extension"
            assert served.completions[1].facts.num_foreign == 0

    run(scenario)


@pytest.mark.parametrize("reply", [CALL_PERU, TWO_CALLS, PATCH, AREA, OK], ids=["call", "two", "custom", "reasoning", "text"])
def test_a_stream_accumulates_to_the_answer(reply):
    async def scenario():
        async with Served(reply) as served:
            whole = await served.create(include=["message.output_text.logprobs"])
            async with served.client.responses.stream(
                model="gpt", input="area of Peru?", tools=[GET, APPLY], include=["message.output_text.logprobs"]
            ) as stream:
                events = [event async for event in stream]
                final = await stream.get_final_response()
            assert [event.sequence_number for event in events] == list(range(len(events)))
            assert comparable(final) == comparable(whole)
            deltas = [event.snapshot for event in events if event.type == "response.output_text.delta"]
            assert (deltas[-1] if deltas else "") == whole.output_text

    run(scenario)


def comparable(response):
    """Without what differs between two calls, and without what the SDK parses beside."""
    said = response.model_dump(mode="json", exclude_unset=True)
    completion_id = said["id"].removeprefix("resp_")
    text = json.dumps(said | {"created_at": 0}).replace(completion_id, "ID")
    said = json.loads(text)
    for item in said["output"]:
        item.pop("parsed_arguments", None)
        for part in item.get("content") or ():
            part.pop("parsed", None)
    return said


def test_log_probabilities_are_those_of_the_text():
    async def scenario():
        async with Served(AREA) as served:
            answer = await served.create(include=["message.output_text.logprobs"])
            logprobs = answer.output[1].content[0].logprobs
            assert len(logprobs) == len(AREA.content.encode())  # a token a byte
            assert "".join(one.token for one in logprobs[:9]) == "1,285,220"
            assert {one.logprob for one in logprobs} == {-0.5}

    run(scenario)


def test_the_synchronous_sdk_answers_alike():
    async def scenario():
        async with Served(CALL_PERU) as served:
            options = {"model": "gpt", "input": "area of Peru?", "tools": [GET, APPLY]}

            def ask():
                with openai.OpenAI(base_url=f"{served.root}/s/{served.opened.secret}/v1", api_key="any", max_retries=0) as client:
                    whole = client.responses.create(**options)
                    with client.responses.stream(**options) as stream:
                        final = stream.get_final_response()
                    parts = list(client.responses.create(**options, stream=True))
                    return whole, final, parts

            whole, final, parts = await asyncio.to_thread(ask)
            assert comparable(whole) == comparable(final) == comparable(parts[-1].response)
            assert final.output[2].parsed_arguments == {"entity": "Peru"}  # the function is strict

    run(scenario)


def test_a_response_continues_an_earlier_one_by_its_id():
    async def scenario():
        async with Served(CALL_PERU, AREA, OK) as served:
            first = await served.create(instructions="Be brief.")
            second = await served.create(output_of(first.output[-1], "1285220"), previous_response_id=first.id, instructions="Be brief.")
            assert (second.previous_response_id, served.completions[1].facts.lineage) == (first.id, "extension")
            await served.create({"role": "user", "content": "and?"}, previous_response_id=second.id)
            assert served.completions[2].facts.lineage != "extension"  # the instructions are not carried over
            with pytest.raises(openai.BadRequestError, match="no response 'resp_other'") as caught:
                await served.create(previous_response_id="resp_other")
            assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")

    run(scenario)


def test_a_cut_answer_is_incomplete():
    async def scenario():
        async with Served(OK) as served:
            answer = await served.create(max_output_tokens=1)
            assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
            parts = [part async for part in await served.create(max_output_tokens=1, stream=True)]
            assert (parts[-1].type, parts[-1].response.status) == ("response.incomplete", "incomplete")

    run(scenario)


def test_refusals_are_the_sdks_own_exceptions():
    async def scenario():
        async with Served(OK, max_calls=1) as served:
            with pytest.raises(openai.AuthenticationError):
                await served.client.with_options(api_key="wrong").responses.create(model="x", input="hi")
            with pytest.raises(openai.BadRequestError, match="Expected `object`") as caught:
                await served.create("not an item")
            assert caught.value.param == "input[0]"
            served.engine.failures = [EngineUnavailable("starting")]
            with pytest.raises(openai.InternalServerError):
                await served.create()
            await served.create()
            with pytest.raises(openai.RateLimitError) as spent:
                await served.create()
            assert spent.value.code == "budget_exceeded"

    run(scenario)


def test_a_failure_after_the_stream_began_is_raised_by_the_sdk():
    async def scenario():
        async with Served(OK, keep_alive_s=0.05) as served:
            served.engine.gate.clear()
            served.engine.failures = [EngineUnavailable("the engine is away")]
            stream = await served.create(stream=True)
            served.engine.gate.set()
            with pytest.raises(openai.APIError, match="the engine is away"):
                async for _ in stream:
                    pass

    run(scenario)


def test_a_body_that_is_not_json_is_400_in_the_shape_of_the_api():
    async def scenario():
        async with Served(OK) as served, httpx.AsyncClient(trust_env=False) as http:
            for content in (b"{", b"[]", b"\xff", b'{"input": "\xff"}', b"[" * 100_000):
                headers = {"authorization": f"Bearer {served.opened.secret}"}
                response = await http.post(f"{served.root}/v1/responses", content=content, headers=headers)
                assert (response.status_code, response.json()["error"]["code"]) == (400, "malformed_request")

    run(scenario)
