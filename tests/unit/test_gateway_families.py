"""The chat formats of the model families, on byte-level vocabularies with each family's own marks."""

import json

import pytest

from tests.chat_formats import MARKS, THINKING, family
from trunkline.gateway.recorder import EpisodeRecorder, Sampled
from trunkline.gateway.wire import Ask, ToolOffer
from trunkline.types import Generation, Message, PolicyVersion, SamplingParams, ToolCall, ToolSpec, VersionSpan

GET = ToolSpec("get", "One fact", {"type": "object", "properties": {"entity": {"type": "string"}, "year": {"type": "integer"}}})
TOOLS = (GET,)
USER = Message("user", "area of Peru?")


def said(renderer, message, *before):
    """The reply's tokens as the model would sample them."""
    return renderer.reply((USER, *before, message), TOOLS)


def call_of(number=7, text="", reasoning=""):
    return Message("assistant", text, (ToolCall("", "get", json.dumps({"entity": "Peru", "year": number})),), reasoning=reasoning)


@pytest.mark.parametrize("name", MARKS)
def test_a_call_with_its_types_is_read_as_it_was_written(name):
    renderer, _ = family(name)
    message, problem = renderer.parse(said(renderer, call_of(1999)), TOOLS)
    assert problem is None
    assert [(call.name, json.loads(call.arguments)) for call in message.tool_calls] == [("get", {"entity": "Peru", "year": 1999})]


@pytest.mark.parametrize("name", sorted(MARKS.keys() - {"llama-3"}))  # which has one call a turn
def test_parallel_calls_and_text_are_told_apart(name):
    renderer, _ = family(name)
    both = Message("assistant", "", call_of(1).tool_calls + call_of(2).tool_calls)
    message, problem = renderer.parse(said(renderer, both), TOOLS)
    assert problem is None
    assert [json.loads(call.arguments)["year"] for call in message.tool_calls] == [1, 2]
    text = Message("assistant", "It is 7.", reasoning="So." if name in THINKING else "")
    message, problem = renderer.parse(said(renderer, text), TOOLS)
    assert (message.content.strip(), message.reasoning, message.tool_calls, problem) == ("It is 7.", text.reasoning, (), None)


@pytest.mark.parametrize("name", MARKS)
def test_a_cut_call_and_a_call_of_no_tool_are_text_with_the_reason(name):
    renderer, _ = family(name)
    whole = said(renderer, call_of())
    cut, why_cut = renderer.parse(whole[:-1], TOOLS)
    unknown, why_unknown = renderer.parse(whole, (ToolSpec("put", "", {"type": "object", "properties": {}}),))
    assert (cut.tool_calls, unknown.tool_calls) == ((), ())
    assert why_cut is not None
    assert why_unknown is not None
    assert "Peru" in cut.content
    assert "Peru" in unknown.content


@pytest.mark.parametrize("name", THINKING)
def test_thinking_is_told_from_the_text(name):
    renderer, _ = family(name)
    message, problem = renderer.parse(said(renderer, call_of(3, "I look.", "Which year?")), TOOLS)
    assert (message.reasoning, message.content, problem) == ("Which year?", "I look.", None)


@pytest.mark.parametrize("name", MARKS)
def test_a_conversation_goes_on_from_the_sampled_tokens(name):
    renderer, _ = family(name)
    prompt, reply = renderer.prompt((USER,), TOOLS), said(renderer, call_of(3))
    bridged = renderer.bridge(prompt, reply, (Message("tool", "7", tool_call_id=""),), TOOLS)
    assert bridged is not None
    assert bridged[: len(prompt) + len(reply)] == prompt + reply


class Talk:
    """An agent's side of one session: asks through a real recorder; the model says what it is told to."""

    def __init__(self, name):
        self.renderer, self.tokenizer = family(name)
        self.recorder = EpisodeRecorder("e")
        self.num = 0

    def ask(self, messages, ids=None, **options):
        ask = Ask(tuple(messages), ToolOffer(TOOLS, b"get"), **options)
        context = self.recorder.context("s", ask, self.renderer)
        self.num += 1
        ids = ids or self.renderer.reply((USER, Message("assistant", f"a{self.num}")), TOOLS)
        generation = Generation(ids, (-0.5,) * len(ids), "stop", (VersionSpan(0, len(ids), PolicyVersion(1, 0)),))
        return self.recorder.commit(context, Sampled(f"c{self.num}", "s", generation, SamplingParams(99)), self.renderer.parse(ids, TOOLS))

    def results(self, committed):
        return [Message("tool", "7", tool_call_id=call.call_id) for call in committed.message.tool_calls]


def without_reasoning(message):
    return Message("assistant", message.content, message.tool_calls)


@pytest.mark.parametrize("name", THINKING)
def test_interleaved_thinking_stays_in_the_context_of_a_client_that_cannot_send_it_back(name):
    talk = Talk(name)
    first = talk.ask([USER], said(talk.renderer, call_of(3, "", "Which year?")))
    second = talk.ask([USER, without_reasoning(first.message), *talk.results(first)])
    assert second.completion.facts.lineage == "extension"
    assert "Which year?" in talk.tokenizer.decode(second.completion.prompt_ids)
    assert (
        second.completion.prompt_ids[: second.completion.num_shared] == first.completion.prompt_ids + first.completion.generation.token_ids
    )


@pytest.mark.parametrize("name", THINKING)
def test_thinking_taken_out_by_a_client_that_sends_it_back_is_a_new_branch(name):
    talk = Talk(name)
    first = talk.ask([USER], said(talk.renderer, call_of(3, "", "Which year?")))
    kept = talk.ask([USER, first.message, *talk.results(first)], keeps_reasoning=True)
    dropped = talk.ask([USER, without_reasoning(first.message), *talk.results(first)], keeps_reasoning=True)
    assert (kept.completion.facts.lineage, dropped.completion.facts.lineage) == ("extension", "dropped_reasoning")
    assert dropped.completion.parent_id is None
    assert "Which year?" not in talk.tokenizer.decode(dropped.completion.prompt_ids)


@pytest.mark.parametrize("name", MARKS)
def test_a_branch_holds_the_turns_of_the_model_as_they_were_sampled(name):
    """Sampled with blanks that no renderer would write."""
    talk = Talk(name)
    canonical = talk.tokenizer.decode(said(talk.renderer, call_of(3)))
    odd = tuple(talk.tokenizer.encode(canonical.replace("Peru", "Peru  ").replace("<parameter", " <parameter"), add_special_tokens=False))
    other = Message("user", "area of Chad?")
    first = talk.ask([USER])
    second = talk.ask([USER, first.message, other], odd)
    assert second.completion.facts.format_error is None
    window = talk.ask([other, second.message, *talk.results(second)])
    assert (window.completion.facts.lineage, window.completion.facts.num_foreign) == ("truncated", 0)
    ids = window.completion.prompt_ids
    assert any(ids[start : start + len(odd)] == odd for start in range(len(ids)))


@pytest.mark.parametrize("name", MARKS)
def test_text_that_spells_control_tokens_stays_text(name):
    talk = Talk(name)
    spelled = "".join(MARKS[name]) + "\ufdd0"
    tool = Message("assistant", "", (ToolCall("functions.get:0", "get", json.dumps({"entity": spelled, "year": 1})),))
    ids = talk.renderer.prompt((Message("user", spelled), tool, Message("tool", spelled, tool_call_id="functions.get:0")), TOOLS)
    plain = talk.renderer.prompt((Message("user", "x"), call_of(1), Message("tool", "x", tool_call_id="")), TOOLS)
    marks = set(talk.tokenizer.convert_tokens_to_ids(MARKS[name]))
    assert [token for token in ids if token in marks] == [token for token in plain if token in marks]
    assert talk.tokenizer.decode(ids).count(spelled) >= 2
