"""Random conversations through the real gateway: whatever the agent does to its history, tokens stay as sampled.

The engine is a small real one: it samples uniformly from the vocabulary, seeded by the request, malformed output included.
"""

import asyncio
import random
import string
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.errors import BudgetExceeded, ContextExceeded, EngineUnavailable, JournalError, MalformedRequest, UnknownSession
from trunkline.gateway.conversation import render_conversation
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.markup import CHATML, TINY, MarkupRenderer
from trunkline.gateway.sampling import AskedSampling, SamplingHold
from trunkline.gateway.sessions import SessionBudget
from trunkline.gateway.wire import Ask, ToolOffer
from trunkline.models.tokenizer import build_tiny_tokenizer
from trunkline.types import Generation, Message, PolicyVersion, RoutedExperts, ToolCall, ToolSpec, VersionSpan

GET = ToolSpec("get", "One fact", {"type": "object", "properties": {"x": {"type": "string"}}})
OFFER, NO_TOOLS = ToolOffer((GET,), b"get"), ToolOffer()
TOKENIZER = build_tiny_tokenizer(
    special_tokens=[*TINY.special_tokens, *dict.fromkeys(CHATML.special_tokens)],
    pieces=["get", "pair", "call: get("],
    characters=string.ascii_letters + string.digits + string.punctuation + " \n",
)


def well_formed(stops, chance):
    """One or two calls as a model would write them, in the markup whose end mark is in `stops`."""
    markup = TINY if TOKENIZER.token_id(TINY.end) in stops else CHATML
    calls = tuple(ToolCall("", "get", f'{{"x":"{chance.choice("ab,")}"}}') for _ in range(chance.randrange(1, 3)))
    return MarkupRenderer(TOKENIZER, markup).reply([Message("assistant", "", calls)], (GET,))


class RandomEngine:
    """Samples at random: whole calls, pieces of calls, ends, anything; `gate` holds requests back, `failures` are raised first."""

    def __init__(self):
        self.sampled = {}
        self.failures = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._aborted = {}

    async def generate(self, request):
        if self.failures:
            raise self.failures.pop(0)
        aborted = self._aborted.setdefault(request.request_id, asyncio.Event())
        waits = {asyncio.ensure_future(self.gate.wait()), asyncio.ensure_future(aborted.wait())}
        _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()
        chance, stops = random.Random(request.sampling.seed), request.sampling.stop_token_ids
        usual = [
            *stops,
            *stops,
            TOKENIZER.token_id("<|call|>"),
            TOKENIZER.token_id("get"),
            TOKENIZER.token_id("<|arg|>"),
            *TOKENIZER.encode("call: get(a)"),
        ]
        ids = list(well_formed(stops, chance)) if chance.random() < 0.4 else []
        while not ids or (len(ids) < request.sampling.max_tokens and ids[-1] not in stops):
            ids.append(chance.choice(usual) if chance.random() < 0.7 else chance.randrange(TOKENIZER.vocab_size))
        ids = ids[: 1 if aborted.is_set() else request.sampling.max_tokens]
        finish = "stop" if ids[-1] in stops else "length"
        finish = "abort" if aborted.is_set() else finish
        generation = Generation(tuple(ids), (-1.0,) * len(ids), finish, (VersionSpan(0, len(ids), PolicyVersion(1, 0)),))
        assert request.request_id not in self.sampled
        self.sampled[request.request_id] = (request, generation)
        return generation

    async def abort(self, request_ids):
        for request_id in request_ids:
            self._aborted.setdefault(request_id, asyncio.Event()).set()

    async def pause(self):
        self.gate.clear()

    async def resume(self):
        self.gate.set()


class MemoryLog:
    """A complete record in memory; `gate` delays it, `broken` makes it fail."""

    def __init__(self):
        self.rows = []
        self.broken = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def record_completion(self, episode_id, completion, messages):
        if self.broken:
            raise JournalError("disk full")
        self.rows.append((episode_id, completion, tuple(messages)))
        await self.gate.wait()


@dataclass
class Stack:
    """A gateway with its engine and log, and one open session of episode 'e'."""

    engine: RandomEngine
    log: MemoryLog
    gateway: Gateway
    session: object

    async def ask(self, messages, *, tools=OFFER, asked=AskedSampling(), may_call=True):
        (committed,) = await self.gateway.complete(self.session, Ask(tuple(messages), tools, may_call, asked))
        return committed


def stack(markup=TINY, *, hold=SamplingHold(max_tokens=12), budget=SessionBudget(), seed=7, engine=None):
    engine, log = engine or RandomEngine(), MemoryLog()
    gateway = Gateway(engine, MarkupRenderer(TOKENIZER, markup), log, model_name="tiny")
    opened = gateway.open_session(episode_id="e", seed=seed, hold=hold, budget=budget)
    return Stack(engine, log, gateway, gateway.session(opened.secret))


USER = Message("user", "q")
MOVES = st.lists(
    st.tuples(st.sampled_from(["append", "edit", "truncate", "fork", "retry", "foreign", "tools"]), st.integers(0, 9)), max_size=9
)


def results(message):
    """What an agent sends back: a result for each call, else a further question."""
    return [Message("tool", "r", tool_call_id=call.call_id) for call in message.tool_calls] or [Message("user", "more")]


def moved(history, past, move, number):
    """The next request's messages."""
    match move:
        case "edit":
            place = number % len(history)
            history = [*history[:place], Message("user", f"e{number}"), *history[place + 1 :]]
        case "truncate":
            history = [history[0], *history[1 + number % len(history) :]]
        case "fork":
            history = list(past[number % len(past)])
        case "foreign":
            history = [*history, Message("assistant", "I", (ToolCall("x", "get", '{"x":"a"}'),)), Message("tool", "o", tool_call_id="x")]
    return history or [USER]


@settings(max_examples=120, deadline=None)
@given(markup=st.sampled_from([TINY, CHATML]), moves=MOVES, seed=st.integers(0, 2**64 - 1))
def test_every_sampled_token_is_recorded_once_and_no_other_is_ever_a_completion(markup, moves, seed):
    async def converse():
        s = stack(markup, seed=seed)
        history, past = [USER], [[USER]]
        for move, number in [("append", 0), *moves]:
            history = moved(history, past, move, number)
            past.append(list(history))
            committed = await s.ask(history, tools=NO_TOOLS if move == "tools" else OFFER)
            if move != "retry":
                # an agent may write the arguments anew; they are compared as JSON
                calls = tuple(
                    ToolCall(call.call_id, call.name, call.arguments.replace(":", " : ")) for call in committed.message.tool_calls
                )
                history = [*history, Message("assistant", committed.message.content, calls), *results(committed.message)]
        await s.gateway.close_session(s.session.session_id)
        return s

    s = asyncio.run(converse())
    completions, messages = s.gateway.episode_record("e")
    assert [one.completion_id for one in completions] == list(s.engine.sampled)
    for one in completions:
        request, generation = s.engine.sampled[one.completion_id]
        assert (one.prompt_ids, one.sampling, one.generation) == (request.token_ids, request.sampling, generation)
    check_parents(completions)
    check_tree(s.log.rows, completions, messages)


def check_parents(completions):
    by_id = {one.completion_id: one for one in completions}
    assert len(by_id) == len(completions)
    assert len({one.sampling.seed for one in completions}) == len(completions)
    for one in completions:
        if one.parent_id is None:
            assert one.num_shared == 0
            continue
        parent = by_id[one.parent_id]
        context = parent.prompt_ids + parent.generation.token_ids
        assert one.num_shared == len(context)
        assert one.prompt_ids[: len(context)] == context


def check_tree(rows, completions, messages):
    nodes = [node for _, _, new in rows for node in new]
    assert tuple(nodes) == messages
    assert tuple(completion for _, completion, _ in rows) == completions
    assert all(node.parent is None or node.parent < index for index, node in enumerate(messages))
    assert all(messages[one.reply_node].parent == one.prompt_node for one in completions)
    assert all(messages[one.reply_node].message.role == "assistant" for one in completions)


@settings(max_examples=60, deadline=None)
@given(markup=st.sampled_from([TINY, CHATML]), num_turns=st.integers(1, 5), seed=st.integers(0, 2**64 - 1))
def test_a_linear_conversation_is_one_chain_of_exact_extensions(markup, num_turns, seed):
    async def converse():
        s = stack(markup, seed=seed)
        history = [USER]
        for _ in range(num_turns):
            committed = await s.ask(history)
            history += [committed.message, *results(committed.message)]
        return s.gateway.episode_record("e").completions

    completions = asyncio.run(converse())
    assert [one.parent_id for one in completions] == [None, *(one.completion_id for one in completions[:-1])]


@settings(max_examples=30, deadline=None)
@given(markup=st.sampled_from([TINY, CHATML]), seed=st.integers(0, 2**32))
def test_a_demonstration_equals_the_live_conversation_that_samples_it(markup, seed):
    """The engine here says what the demonstration says; the last context and reply must be its tokens."""
    renderer, chance = MarkupRenderer(TOKENIZER, markup), random.Random(seed)
    demonstration = [USER]
    for turn in range(chance.randrange(1, 4)):
        calls = tuple(ToolCall(f"c{turn}{place}", "get", f'{{"x":"{chance.choice("ab,")}"}}') for place in range(chance.randrange(3)))
        said = Message("assistant", chance.choice(["", "t"]), calls)
        demonstration += [said, *results(said)]
    while demonstration[-1].role != "assistant":
        demonstration.pop()

    async def live():
        s = stack(markup, hold=SamplingHold(max_tokens=99))
        token_ids = ()
        for place, message in enumerate(demonstration):
            if message.role == "assistant":
                says = renderer.reply(demonstration[: place + 1], (GET,))

                async def generate(request, says=says):
                    return Generation(says, (0.0,) * len(says), "stop", (VersionSpan(0, len(says), PolicyVersion(1, 0)),))

                s.engine.generate = generate
                completion = (await s.ask(demonstration[:place])).completion
                token_ids = completion.prompt_ids + completion.generation.token_ids
        return token_ids

    rendered = render_conversation(renderer, demonstration, (GET,))
    assert rendered.token_ids == asyncio.run(live())


@pytest.mark.parametrize("markup", [TINY, CHATML])
def test_calls_are_known_by_their_json_and_results_by_the_call_they_answer(markup):
    async def converse():
        s = stack(markup, hold=SamplingHold(max_tokens=99))
        calls = tuple(ToolCall("", "pair", f'{{"x":"{x}","y":1}}') for x in "ab")
        offer = ToolOffer((ToolSpec("pair", "", {"properties": {"x": {}, "y": {"type": "integer"}}}),), b"pair")
        says = MarkupRenderer(TOKENIZER, markup).reply([Message("assistant", "", calls)], offer.specs)

        async def generate(request):
            return Generation(says, (0.0,) * len(says), "stop", (VersionSpan(0, len(says), PolicyVersion(1, 0)),))

        s.engine.generate = generate
        first = await s.ask([USER], tools=offer)
        # the agent's own ids, its own spacing and key order
        echoed = Message("assistant", "", tuple(ToolCall(f"my-{x}", "pair", f'{{ "y": 1, "x": "{x}" }}') for x in "ab"))
        orders = [["my-a", "my-b"], ["my-b", "my-a"]]
        later = [await s.ask([USER, echoed, *(Message("tool", "r", tool_call_id=one) for one in ids)], tools=offer) for ids in orders]
        return first, later

    first, later = asyncio.run(converse())
    assert [call.call_id for call in first.message.tool_calls] == ["call_1_0", "call_1_1"]
    assert [one.completion.parent_id for one in later] == [first.completion.completion_id] * 2
    assert later[0].completion.prompt_node != later[1].completion.prompt_node


class RoutingEngine(RandomEngine):
    """Reports a route of every token but the last: the token itself."""

    async def generate(self, request):
        generation = await super().generate(request)
        ids = (request.token_ids + generation.token_ids)[:-1]
        return replace(generation, routes=RoutedExperts(0, 1, 1, b"".join(token.to_bytes(2, "little") for token in ids)))


def test_of_routes_that_a_call_shares_with_its_parent_the_parent_s_record_counts():
    """So each token has one record, the last that a parent sampled the child's; a branch has a record of its own from its start on."""

    async def converse():
        s = stack(engine=RoutingEngine())
        first = await s.ask([USER])
        second = await s.ask([USER, first.message, *results(first.message)])
        await s.ask([USER, first.message, *results(first.message), second.message, *results(second.message)])
        await s.ask([Message("user", "another")])
        return s.gateway.episode_record("e").completions

    completions = asyncio.run(converse())
    assert [one.parent_id for one in completions] == [None, completions[0].completion_id, completions[1].completion_id, None]
    for one in completions:
        routes, ids = one.generation.routes, one.prompt_ids + one.generation.token_ids
        assert routes.first == max(0, one.num_shared - 1)
        assert routes.data == b"".join(token.to_bytes(2, "little") for token in ids[routes.first : -1])


def test_the_same_prompt_asked_again_samples_anew_and_a_new_run_repeats_both():
    async def twice():
        s = stack()
        return [(await s.ask([USER])).completion.sampling.seed for _ in range(2)]

    first, second = asyncio.run(twice())
    assert first != second
    assert asyncio.run(twice()) == [first, second]


def test_the_order_of_calls_does_not_change_their_seeds():
    async def seeds(texts):
        s = stack()
        return {text: (await s.ask([Message("user", text)])).completion.sampling.seed for text in texts}

    assert asyncio.run(seeds("abc")) == asyncio.run(seeds("cab"))


def test_a_call_that_the_engine_refused_leaves_no_trace():
    async def converse():
        s = stack(budget=SessionBudget(max_calls=1))
        s.engine.failures = [EngineUnavailable("starting")]
        with pytest.raises(EngineUnavailable):
            await s.ask([USER])
        seed = (await s.ask([USER])).completion.sampling.seed
        return seed, (await stack().ask([USER])).completion.sampling.seed

    retried, untroubled = asyncio.run(converse())
    assert retried == untroubled


def test_the_hold_wins_and_what_the_client_asked_is_recorded():
    async def converse():
        s = stack(hold=SamplingHold(temperature=1.0, max_tokens=5))
        asked = AskedSampling(max_tokens=3, temperature=0.0, top_p=0.5, seed=1, stop=("x",))
        completion = (await s.ask([USER], asked=asked)).completion
        return completion

    completion = asyncio.run(converse())
    assert (completion.sampling.temperature, completion.sampling.top_p, completion.sampling.max_tokens) == (1.0, 1.0, 3)
    assert completion.drop_reason is None
    assert completion.facts.asked == {"max_tokens": 3, "temperature": 0.0, "top_p": 0.5, "seed": 1, "stop": ["x"]}


@pytest.mark.parametrize("hold", [SamplingHold(temperature=0, max_tokens=4), SamplingHold(top_p=0.9, max_tokens=4)])
def test_tokens_of_another_distribution_are_dropped_with_a_reason(hold):
    completion = asyncio.run(first_call(hold)).completion
    assert completion.drop_reason is not None
    assert completion.drop_reason.startswith("sampled under another distribution")


async def first_call(hold):
    return await stack(hold=hold).ask([USER])


def test_tool_choice_none_answers_calls_as_text_in_the_same_branch():
    async def converse():
        s = stack(hold=SamplingHold(max_tokens=40))
        call = MarkupRenderer(TOKENIZER, TINY).reply([Message("assistant", "", (ToolCall("", "get", '{"x":"a"}'),))], (GET,))

        async def generate(request):
            return Generation(call, (0.0,) * len(call), "stop", (VersionSpan(0, len(call), PolicyVersion(1, 0)),))

        s.engine.generate = generate
        first = await s.ask([USER])
        second = await s.ask([USER, first.message, *results(first.message)], may_call=False)
        return first, second

    first, second = asyncio.run(converse())
    assert [call.name for call in first.message.tool_calls] == ["get"]
    assert (second.message.content, second.message.tool_calls) == ("<|call|>get<|arg|>a", ())
    assert second.completion.parent_id == first.completion.completion_id


def test_sessions_of_one_episode_share_its_tree_and_not_their_tokens():
    async def converse():
        s = stack()
        other = s.gateway.open_session(episode_id="e", seed=7, hold=SamplingHold(max_tokens=12), budget=SessionBudget())
        first = await s.ask([USER])
        history = (USER, first.message, *results(first.message))
        (sub,) = await s.gateway.complete(s.gateway.session(other.secret), Ask(history, OFFER))
        return s.gateway.episode_record("e"), first, sub

    record, first, sub = asyncio.run(converse())
    assert record.completions == (first.completion, sub.completion)
    assert sub.completion.parent_id is None
    assert len(record.messages) == 2 + len(results(first.message)) + 1


def test_budgets_refuse_the_call_after():
    async def converse():
        calls = stack(budget=SessionBudget(max_calls=1))
        await calls.ask([USER])
        with pytest.raises(BudgetExceeded, match="1 calls"):
            await calls.ask([USER])
        tokens = stack(budget=SessionBudget(max_tokens=2))
        while tokens.session.num_sampled < 2:
            await tokens.ask([USER])
        with pytest.raises(BudgetExceeded, match="2 sampled tokens"):
            await tokens.ask([USER])
        assert all(one.num_sampled <= 2 for one in tokens.gateway.episode_record("e").completions)
        context = stack(budget=SessionBudget(max_context=8))
        with pytest.raises(ContextExceeded, match="prompt is too long"):
            await context.ask([Message("user", "a" * 9)])
        completion = (await context.ask([Message("user", "a")], tools=NO_TOOLS)).completion
        assert len(completion.prompt_ids) + completion.sampling.max_tokens == 8

    asyncio.run(converse())


def test_closing_a_session_aborts_and_records_what_is_in_flight():
    async def converse():
        s = stack()
        await s.gateway.pause()
        calls = [asyncio.create_task(s.ask([Message("user", text)])) for text in "ab"]
        await asyncio.sleep(0.01)
        unstarted = asyncio.create_task(s.ask([USER]))
        await s.gateway.close_session(s.session.session_id)
        outcomes = await asyncio.gather(*calls, unstarted, return_exceptions=True)
        with pytest.raises(UnknownSession):
            s.gateway.session(s.session.secret)
        return outcomes, s

    outcomes, s = asyncio.run(converse())
    assert all(isinstance(one, UnknownSession) for one in outcomes)
    completions = s.gateway.episode_record("e").completions
    assert [one.drop_reason for one in completions] == ["aborted", "aborted"]
    s.gateway.discard("e")


def test_a_caller_that_leaves_is_recorded_all_the_same():
    async def converse():
        s = stack()
        await s.gateway.pause()
        caller = asyncio.create_task(s.ask([USER]))
        await asyncio.sleep(0.01)
        caller.cancel()
        await s.gateway.resume()
        while s.session.tasks:
            await asyncio.sleep(0.001)
        return s

    s = asyncio.run(converse())
    assert len(s.log.rows) == len(s.engine.sampled) == 1


def test_no_answer_leaves_before_the_log_returns():
    async def converse():
        s = stack()
        s.log.gate.clear()
        caller = asyncio.create_task(s.ask([USER]))
        await asyncio.sleep(0.02)
        assert len(s.log.rows) == 1
        assert not caller.done()
        s.log.gate.set()
        await caller
        s.log.broken = True
        with pytest.raises(JournalError):
            await s.ask([USER])

    asyncio.run(converse())


def test_the_clock_stands_still_while_paused():
    async def converse():
        gateway = stack().gateway
        await gateway.pause()
        before = gateway.active_time()
        await asyncio.sleep(0.03)
        await gateway.pause()
        assert gateway.active_time() == before
        await gateway.resume()
        await asyncio.sleep(0.01)
        assert 0.01 <= gateway.active_time() - before < 0.03

    asyncio.run(converse())


def test_text_that_cannot_be_written_is_refused_and_costs_no_call():
    async def converse():
        s = stack(budget=SessionBudget(max_calls=1))
        with pytest.raises(MalformedRequest):
            await s.ask([Message("user", "ü")])
        await s.ask([USER])

    asyncio.run(converse())
