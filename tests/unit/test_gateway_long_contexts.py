"""What spares work on long contexts changes nothing: hashes that go on from a parent's, turns found by their calls' ids."""

from __future__ import annotations

import asyncio
import string

from hypothesis import given
from hypothesis import strategies as st

from tests.engines import NoLog
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.markup import TINY, MarkupRenderer
from trunkline.gateway.sampling import SamplingHold, call_seed, hash_ids
from trunkline.gateway.sessions import SessionBudget
from trunkline.gateway.wire import Ask, ToolOffer
from trunkline.models.tokenizer import build_tiny_tokenizer
from trunkline.types import Generation, Message, PolicyVersion, ToolCall, ToolSpec, VersionSpan

GET = ToolSpec("get", "One fact", {"type": "object", "properties": {"x": {"type": "string"}}})
OFFER = ToolOffer((GET,), b"get")
TOKENIZER = build_tiny_tokenizer(
    special_tokens=TINY.special_tokens, pieces=["get", "pair"], characters=string.ascii_letters + string.digits + string.punctuation + " "
)
RENDERER = MarkupRenderer(TOKENIZER, TINY)
IDS = st.lists(st.integers(0, 2**31 - 1), max_size=20)
SEED = 11

WHOLE = RENDERER.reply((Message("assistant", "", (ToolCall("", "get", '{"x":"pair"}'),)),), (GET,))
"""get(pair), its value as one token."""
_PLACE = WHOLE.index(TOKENIZER.token_id("pair"))
SPELLED = (*WHOLE[:_PLACE], *map(TOKENIZER.token_id, "pair"), *WHOLE[_PLACE + 1 :])
"""The same words in other tokens."""


class ScriptedEngine:
    """Says its replies in turn."""

    def __init__(self, *replies):
        self.replies = list(replies)

    async def generate(self, request):
        ids = self.replies.pop(0)
        return Generation(ids, (-1.0,) * len(ids), "stop", (VersionSpan(0, len(ids), PolicyVersion(1, 0)),))


async def converse(*replies):
    """The gateway, its session, and the messages after a turn for each reply."""
    gateway = Gateway(ScriptedEngine(*replies), RENDERER, NoLog(), model_name="tiny")
    opened = gateway.open_session(episode_id="e", seed=SEED, hold=SamplingHold(max_tokens=64), budget=SessionBudget())
    session, messages = gateway.session(opened.secret), [Message("user", "q")]
    while gateway._engine.replies[1:]:
        (committed,) = await gateway.complete(session, Ask(tuple(messages), OFFER))
        messages += [committed.message, Message("tool", "r", tool_call_id=committed.message.tool_calls[0].call_id)]
    return gateway, session, messages


def test_the_name_of_a_context_is_the_same_from_version_to_version():
    assert hash_ids((1, 2, 3)).digest().hex() == "abccad42d03c940bc2b249bf5a4e1e3d"
    assert call_seed(7, hash_ids(range(1000)).digest(), 2) == 3680309299294402371


@given(before=IDS, after=IDS, other=IDS)
def test_a_hash_goes_on_from_that_of_the_beginning_and_leaves_it_as_it_was(before, after, other):
    begun = hash_ids(before)
    assert hash_ids(after, begun).digest() == hash_ids([*before, *after]).digest()
    assert hash_ids(other, begun).digest() == hash_ids([*before, *other]).digest()


def test_every_call_is_seeded_by_the_whole_of_its_context_whether_it_extends_or_branches():
    async def scenario():
        gateway, session, messages = await converse(WHOLE, SPELLED, WHOLE, WHOLE)
        await gateway.complete(session, Ask((Message("system", "s"), *messages), OFFER))
        completions = gateway.episode_record("e").completions
        assert [one.parent_id is None for one in completions] == [True, False, False, True]
        for one in completions:
            assert one.sampling.seed == call_seed(SEED, hash_ids(one.prompt_ids).digest(), 0)

    asyncio.run(scenario())


def test_of_turns_with_the_same_words_the_ids_of_calls_say_which_tokens_they_were():
    async def scenario():
        gateway, session, messages = await converse(WHOLE, SPELLED, WHOLE, WHOLE)
        await gateway.complete(session, Ask((Message("system", "s"), *messages), OFFER))
        text = gateway.episode_record("e").completions[-1].prompt_ids
        places = [[start for start in range(len(text)) if text[start : start + len(ids)] == ids] for ids in (WHOLE, SPELLED)]
        assert len(places[0]) == 2 and len(places[1]) == 1
        assert places[0][0] < places[1][0] < places[0][1]

    asyncio.run(scenario())
