"""What an agent does to its history, told by the record in one word; and which turns it says the model wrote."""

import string

import pytest

from trunkline.gateway.markup import TINY, MarkupRenderer
from trunkline.gateway.recorder import EpisodeRecorder, Sampled
from trunkline.gateway.wire import Ask, ToolOffer
from trunkline.models.tokenizer import build_tiny_tokenizer
from trunkline.types import Generation, Message, PolicyVersion, SamplingParams, ToolCall, ToolSpec, VersionSpan

GET = ToolSpec("get", "One fact", {"type": "object", "properties": {"x": {"type": "string"}}})
PUT = ToolSpec("put", "No fact", {"type": "object", "properties": {"x": {"type": "string"}}})
TOKENIZER = build_tiny_tokenizer(
    special_tokens=TINY.special_tokens, pieces=["get", "put"], characters=string.ascii_letters + string.digits + string.punctuation + " \n"
)
RENDERER = MarkupRenderer(TOKENIZER, TINY)
SYSTEM, QUESTION = Message("system", "You look things up."), Message("user", "What is the area of Peru, and of Chad?")
SUMMARY = "So far: Peru has an area of 1285216, Chad is open."


class Agent:
    """Asks over one recorder; the model answers what it is told to."""

    def __init__(self):
        self.recorder = EpisodeRecorder("e")
        self.num = 0

    def ask(self, *messages, answers="", call=None, session="s", tools=(GET,)):
        self.num += 1
        said = Message("assistant", answers, (ToolCall("", "get", f'{{"x":"{call}"}}'),) if call else ())
        ask = Ask(tuple(messages), ToolOffer(tools, repr([tool.name for tool in tools]).encode()))
        context = self.recorder.context(session, ask, RENDERER)
        ids = RENDERER.reply((said,), tools)
        generation = Generation(ids, (-0.5,) * len(ids), "stop", (VersionSpan(0, len(ids), PolicyVersion(1, 0)),))
        committed = self.recorder.commit(
            context, Sampled(f"c{self.num}", session, generation, SamplingParams(99)), RENDERER.parse(ids, tools)
        )
        return committed

    def worked(self, *, turns=3):
        """A conversation of so many calls and results, and all of its messages."""
        messages = [SYSTEM, QUESTION]
        for turn in range(turns):
            reply = self.ask(*messages, call=f"x{turn}").message
            messages += [reply, Message("tool", f"r{turn}", tool_call_id=reply.tool_calls[0].call_id)]
        return messages


def lineage(committed):
    return committed.completion.facts.lineage


def test_appending_is_an_extension_and_the_first_call_the_first():
    agent = Agent()
    messages = agent.worked()
    assert [one.facts.lineage for one in agent.recorder.completions] == ["first", "extension", "extension"]
    assert lineage(agent.ask(*messages)) == "extension"
    assert all(one.facts.num_foreign == 0 for one in agent.recorder.completions)


def test_the_same_request_once_more_is_a_repeat_and_extends_the_same_call():
    agent = Agent()
    messages = agent.worked()
    once, again = agent.ask(*messages), agent.ask(*messages, answers="done")
    assert lineage(again) == "repeat"
    assert again.completion.parent_id == once.completion.parent_id
    assert again.completion.prompt_ids == once.completion.prompt_ids


def test_the_same_messages_with_other_tools_are_an_edit():
    agent = Agent()
    messages = agent.worked()
    committed = agent.ask(*messages, tools=(GET, PUT))
    assert (lineage(committed), committed.completion.parent_id) == ("edited", None)


@pytest.mark.parametrize("place", [1, 3])
def test_other_words_in_the_history_are_an_edit(place):
    agent = Agent()
    messages = agent.worked()
    messages[place] = Message(messages[place].role, "something else", tool_call_id=messages[place].tool_call_id)
    assert lineage(agent.ask(*messages)) == "edited"


@pytest.mark.parametrize("left_out", [slice(2, 4), slice(1, 4), slice(2, 6)])
def test_messages_left_out_are_a_truncation(left_out):
    agent = Agent()
    messages = agent.worked(turns=4)
    del messages[left_out]
    assert lineage(agent.ask(*messages)) == "truncated"


def test_everything_dropped_but_the_task_is_a_repeat_of_the_first_call():
    agent = Agent()
    agent.worked()
    assert lineage(agent.ask(SYSTEM, QUESTION)) == "repeat"


def test_a_summary_in_place_of_the_history_is_a_compaction_in_whatever_message_it_stands():
    agent = Agent()
    messages = agent.worked()
    asked = agent.ask(*messages, Message("user", "Summarise."), answers=SUMMARY)
    assert lineage(asked) == "extension"
    assert lineage(agent.ask(SYSTEM, QUESTION, Message("user", f"Notes: {SUMMARY}"))) == "compacted"
    assert lineage(agent.ask(SYSTEM, Message("user", f"We go on.\n{SUMMARY}"))) == "compacted"
    assert lineage(agent.ask(SYSTEM, QUESTION, Message("user", "Notes by hand."), *messages[-2:])) == "compacted"


def test_a_sub_agents_context_and_a_side_request_are_fresh():
    agent = Agent()
    messages = agent.worked()
    assert lineage(agent.ask(SYSTEM, Message("user", "Look up Chad alone."))) == "fresh"
    assert lineage(agent.ask(Message("user", "A title for this chat?"), tools=())) == "fresh"
    assert lineage(agent.ask(SYSTEM, QUESTION, session="another")) == "fresh"
    assert lineage(agent.ask(*messages)) == "extension"


def test_a_context_that_shares_only_a_preamble_is_fresh():
    agent, preamble = Agent(), Message("user", "The working directory is /home.")
    reply = agent.ask(SYSTEM, preamble, QUESTION, answers="I look.").message
    assert lineage(agent.ask(SYSTEM, preamble, Message("user", "Look up Chad alone."))) == "fresh"
    assert lineage(agent.ask(SYSTEM, preamble, QUESTION, reply, Message("user", "go on"))) == "extension"


def test_a_history_told_in_other_words_is_an_edit():
    agent = Agent()
    reply = agent.ask(SYSTEM, QUESTION, call="x").message
    told = Message("assistant", f"I called {reply.tool_calls[0].name}.")
    committed = agent.ask(SYSTEM, QUESTION, told, Message("user", "It said 7."))
    assert (lineage(committed), committed.completion.facts.num_foreign) == ("edited", 1)


def test_turns_that_the_model_never_wrote_are_counted():
    agent = Agent()
    messages = agent.worked(turns=1)
    committed = agent.ask(*messages, Message("assistant", "I never said this."), Message("user", "go on"))
    assert (lineage(committed), committed.completion.facts.num_foreign) == ("extension", 1)


def test_an_echo_with_stripped_blanks_and_reordered_arguments_is_the_same_turn():
    agent = Agent()
    reply = agent.ask(SYSTEM, QUESTION, answers=" I look.\n", call="Peru").message
    echo = Message("assistant", "I look.", (ToolCall("mine", "get", '{ "x" : "Peru" }'),))
    committed = agent.ask(SYSTEM, QUESTION, echo, Message("tool", "7", tool_call_id="mine"))
    assert reply.content == " I look.\n"
    assert (lineage(committed), committed.completion.facts.num_foreign) == ("extension", 0)


def test_of_equal_replies_the_one_is_meant_whose_call_ids_come_back():
    agent = Agent()
    first = agent.ask(SYSTEM, QUESTION, call="x")
    messages = [SYSTEM, QUESTION, first.message, Message("tool", "r", tool_call_id=first.message.tool_calls[0].call_id)]
    second = agent.ask(*messages, call="x")
    committed = agent.ask(
        SYSTEM, first.message, messages[-1], second.message, Message("tool", "s", tool_call_id=second.message.tool_calls[0].call_id)
    )
    assert (lineage(committed), committed.completion.facts.num_foreign) == ("truncated", 0)
