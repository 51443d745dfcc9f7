"""Cases of what agents do to their history: extend it, rewrite it, branch off it. The record must stay what was sampled."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

from trunkline.bench.conformance.scene import Scene, call_text, opening
from trunkline.bench.conformance.wires import CHAT, MESSAGES, Called, Conversation, Wire


async def append(scene: Scene, wire: Wire) -> None:
    """In an agent's loop each prompt is the last prompt, its sampled tokens, and new tokens behind them."""
    first, second, third = scene.engine.plan(call_text("Paris")), scene.engine.plan(call_text("Rome")), scene.engine.plan("done")
    conversation = await scene.call_tool(wire, opening(wire, f"Compare. {first.mark}"), f"2 million {second.mark}")
    conversation = await scene.call_tool(wire, conversation, f"3 million {third.mark}")
    await scene.ask(wire, conversation)
    scene.demand_extensions()
    await scene.settle()


async def append_streamed(scene: Scene, wire: Wire) -> None:
    """The same loop by streams: what an agent joins and sends back is still an exact extension."""
    first, second = scene.engine.plan(f"I look.\n{call_text('Paris')}"), scene.engine.plan("done")
    conversation = await scene.call_tool(wire, opening(wire, f"Look. {first.mark}"), f"2 million {second.mark}", is_streamed=True)
    await scene.ask(wire, conversation, is_streamed=True)
    scene.demand_extensions()
    await scene.settle()


async def drift(scene: Scene) -> None:
    """Tokens that no encoder would write (one byte each) come back as they were sampled, not as an encoder writes their text."""
    model = scene.engine.model
    odd = (*model.drifted_ids(f"hello world, the answer is\n{call_text('Paris')}"), model.end_id)
    first, second = scene.engine.plan(odd), scene.engine.plan("done")
    conversation = await scene.call_tool(CHAT, opening(CHAT, f"Look. {first.mark}"), f"2 million {second.mark}")
    await scene.ask(CHAT, conversation)
    scene.demand_extensions()
    await scene.settle()


async def odd_spacing(scene: Scene) -> None:
    """A call sampled with unusual spaces and key order, sent back by the agent as it got it, stays the sampled tokens."""
    written = '<tool_call>\n{"arguments":{"year":1999,   "city":"Paris"},"name":"get"}\n</tool_call>'
    first, second = scene.engine.plan(written), scene.engine.plan("done")
    conversation = await scene.call_tool(CHAT, opening(CHAT, f"Look. {first.mark}"), f"2 million {second.mark}")
    await scene.ask(CHAT, conversation)
    scene.demand_extensions()
    await scene.settle()


async def reordered_arguments(scene: Scene) -> None:
    """A client that parses a call's arguments and writes them anew (other order, other spaces) still continues the sample."""
    first, second = scene.engine.plan(call_text("Paris", year=1999)), scene.engine.plan("done")
    reply = await scene.ask(CHAT, opening(CHAT, f"Look. {first.mark}"))
    scene.demand(len(reply.calls) == 1, f"the agent got {reply.calls}")
    arguments = json.dumps(dict(reversed(json.loads(reply.calls[0].arguments).items())), separators=(" ,", ":  "))
    echo = _call_message(reply.calls[0], arguments, content=reply.text or None)
    await scene.ask(
        CHAT, opening(CHAT, f"Look. {first.mark}").plus(echo, *CHAT.results([(reply.calls[0].call_id, f"2 million {second.mark}")]))
    )
    scene.demand_extensions()
    await scene.settle()


async def edited_history(scene: Scene) -> None:
    """A history with another word in it is a context of its own: the model sees the new word, and both samples stay exact."""
    first, second = scene.engine.plan(call_text("Paris")), scene.engine.plan("done")
    conversation = await scene.call_tool(CHAT, opening(CHAT, f"Look at Paris. {first.mark}"), f"2 million {second.mark}")
    edited = replace(conversation, items=({**conversation.items[0], "content": f"Look at Lyon. {first.mark}"}, *conversation.items[1:]))
    await scene.ask(CHAT, edited)
    prompt = scene.engine.model.text(scene.draws[-1].prompt_ids)
    scene.demand("Lyon" in prompt and "Look at Paris" not in prompt, f"the model saw {prompt[-400:]!r}")
    await scene.settle()


async def truncated_history(scene: Scene) -> None:
    """A history whose oldest turns are cut off is answered from what is left, and every sample of it stays trained once."""
    first, second, third = scene.engine.plan(call_text("Paris")), scene.engine.plan(call_text("Rome")), scene.engine.plan("done")
    conversation = await scene.call_tool(CHAT, opening(CHAT, f"Compare. {first.mark}"), f"2 million {second.mark}")
    conversation = await scene.call_tool(CHAT, conversation, f"3 million {third.mark}")
    await scene.ask(CHAT, replace(conversation, items=(conversation.items[0], *conversation.items[3:])))
    prompt = scene.engine.model.text(scene.draws[-1].prompt_ids)
    scene.demand("2 million" not in prompt and "3 million" in prompt, f"the model saw {prompt[-400:]!r}")
    await scene.settle()


async def compaction(scene: Scene) -> None:
    """After a summary in a fresh context, the samples before it, the summary and the samples after it are all kept."""
    first, summing, second, third = (
        scene.engine.plan(text) for text in (call_text("Paris"), "Paris has 2 million.", call_text("Rome"), "done")
    )
    conversation = await scene.call_tool(CHAT, opening(CHAT, f"Compare. {first.mark}"), "2 million")
    summary = await scene.ask(CHAT, conversation.plus(CHAT.user(f"Sum up. {summing.mark}")))
    fresh = opening(CHAT, f"Compare. So far: {summary.text} {second.mark}")
    conversation = await scene.call_tool(CHAT, fresh, f"3 million {third.mark}")
    await scene.ask(CHAT, conversation)
    scene.demand_extension(scene.draws[2], scene.draws[3])
    await scene.settle()


async def dropped_thinking(scene: Scene) -> None:
    """A client that sends turns back without their thinking: whatever context results is the one that is recorded."""
    first, second = scene.engine.plan(f"<think>\nParis it is.\n</think>\n\n{call_text('Paris')}"), scene.engine.plan("done")
    reply = await scene.ask(CHAT, opening(CHAT, f"Look. {first.mark}"))
    scene.demand(len(reply.calls) == 1, f"the agent got {reply.calls} and {reply.text!r}")
    echo = _call_message(reply.calls[0], reply.calls[0].arguments, content="")
    conversation = opening(CHAT, f"Look. {first.mark}").plus(echo, *CHAT.results([(reply.calls[0].call_id, f"2 million {second.mark}")]))
    await scene.ask(CHAT, conversation)
    await scene.settle()


def _call_message(call: Called, arguments: str, *, content: str | None) -> dict[str, Any]:
    """An assistant message of Chat Completions as a client writes it by itself."""
    written = {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
    return {"role": "assistant", "content": content, "tool_calls": [written]}


async def kept_thinking(scene: Scene, wire: Wire) -> None:
    """A client that sends a thinking turn back as it got it continues the sampled tokens, its thinking included."""
    first, second = scene.engine.plan(f"<think>\nParis it is.\n</think>\n\n{call_text('Paris')}"), scene.engine.plan("done")
    conversation = await scene.call_tool(wire, opening(wire, f"Look. {first.mark}"), f"2 million {second.mark}")
    await scene.ask(wire, conversation)
    scene.demand_extensions()
    await scene.settle()


async def moving_cache_control(scene: Scene) -> None:
    """Anthropic's cache_control marks move with every turn; they are no change of history."""
    first, second, third = scene.engine.plan(call_text("Paris")), scene.engine.plan(call_text("Rome")), scene.engine.plan("done")
    conversation = opening(MESSAGES, f"Compare. {first.mark}")
    conversation = await _call_cached(scene, conversation, f"2 million {second.mark}")
    conversation = await _call_cached(scene, conversation, f"3 million {third.mark}")
    await scene.ask(MESSAGES, _with_cache_control(conversation))
    scene.demand_extensions()
    await scene.settle()


async def _call_cached(scene: Scene, conversation: Conversation, result: str) -> Conversation:
    reply = await scene.ask(MESSAGES, _with_cache_control(conversation))
    scene.demand(len(reply.calls) == 1, f"the agent got {reply.calls} and {reply.text!r}")
    return conversation.plus(*reply.echo, *MESSAGES.results([(reply.calls[0].call_id, result)]))


def _with_cache_control(conversation: Conversation) -> Conversation:
    last = conversation.items[-1]
    blocks: list[Any] = [*last["content"][:-1], {**last["content"][-1], "cache_control": {"type": "ephemeral"}}]
    return replace(conversation, items=(*conversation.items[:-1], {**last, "content": blocks}))


async def sub_agents(scene: Scene) -> None:
    """Four sub-agents at once under one key, each with a context of its own: none is mixed up with another."""

    async def work(city: str) -> None:
        first, second = scene.engine.plan(call_text(city)), scene.engine.plan(f"{city} is done")
        conversation = opening(CHAT, f"You look after {city}. {first.mark}", system=f"You are the agent of {city}.")
        conversation = await scene.call_tool(CHAT, conversation, f"facts of {city} {second.mark}")
        reply = await scene.ask(CHAT, conversation)
        scene.demand(reply.text == f"{city} is done", f"the agent of {city} got {reply.text!r}")

    await asyncio.gather(*(work(city) for city in ("Paris", "Rome", "Oslo", "Bern")))
    for city in ("Paris", "Rome", "Oslo", "Bern"):
        own = [drawn for drawn in scene.draws if f"agent of {city}" in scene.engine.model.text(drawn.prompt_ids)]
        scene.demand(len(own) == 2, f"{city} has {len(own)} draws")
        scene.demand_extension(own[0], own[1])
    await scene.settle()


async def side_request(scene: Scene) -> None:
    """A side request between two turns (a title) does not break the conversation around it."""
    first, title, second = scene.engine.plan(call_text("Paris")), scene.engine.plan("A question of cities"), scene.engine.plan("done")
    conversation = await scene.call_tool(CHAT, opening(CHAT, f"Look. {first.mark}"), f"2 million {second.mark}")
    await scene.ask(CHAT, Conversation((CHAT.user(f"Write a title for: Look. {title.mark}"),), "You write titles."))
    await scene.ask(CHAT, conversation)
    scene.demand_extension(scene.draws[0], scene.draws[2])
    await scene.settle()


async def foreign_turns(scene: Scene) -> None:
    """Assistant turns that the model never wrote (an example, an inserted answer) are context and are not trained."""
    plan = scene.engine.plan("done")
    conversation = opening(CHAT, "What is the answer?").plus(
        {"role": "assistant", "content": "hello world"}, CHAT.user(f"And now? {plan.mark}")
    )
    await scene.ask(CHAT, conversation)
    record = await scene.settle()
    trained = sum(sum(row.trained) for row in record.rows)
    scene.demand(trained == len(scene.draws[0].token_ids), f"{trained} tokens are trained, {len(scene.draws[0].token_ids)} were sampled")


async def parallel_calls(scene: Scene, wire: Wire) -> None:
    """Two calls in one turn reach the agent in order, and their results continue the sampled tokens."""
    first, second = scene.engine.plan(f"{call_text('Paris')}\n{call_text('Rome')}"), scene.engine.plan("done")
    conversation = opening(wire, f"Compare. {first.mark}")
    reply = await scene.ask(wire, conversation)
    cities = [json.loads(call.arguments).get("city") for call in reply.calls]
    scene.demand(cities == ["Paris", "Rome"], f"the model called for Paris and Rome, the agent got {cities}")
    scene.demand(len({call.call_id for call in reply.calls}) == 2, "both calls have one id")
    results = wire.results([(reply.calls[0].call_id, "2 million"), (reply.calls[1].call_id, f"3 million {second.mark}")])
    await scene.ask(wire, conversation.plus(*reply.echo, *results))
    scene.demand_extensions()
    await scene.settle()


async def results_in_another_order(scene: Scene) -> None:
    """Results of two parallel calls that come back in the other order continue the sampled tokens all the same."""
    first, second = scene.engine.plan(f"{call_text('Paris')}\n{call_text('Rome')}"), scene.engine.plan("done")
    conversation = opening(CHAT, f"Compare. {first.mark}")
    reply = await scene.ask(CHAT, conversation)
    scene.demand(len(reply.calls) == 2, f"the agent got {reply.calls}")
    results = CHAT.results([(reply.calls[1].call_id, "3 million"), (reply.calls[0].call_id, f"2 million {second.mark}")])
    await scene.ask(CHAT, conversation.plus(*reply.echo, *results))
    prompt = scene.engine.model.text(scene.draws[-1].prompt_ids)
    scene.demand("3 million" in prompt and "2 million" in prompt, f"the model saw {prompt[-300:]!r}")
    scene.demand_extensions()
    await scene.settle()


async def new_question(scene: Scene) -> None:
    """A user's next question after a finished answer: whatever the format keeps of the past, both samples stay exact."""
    first, second = scene.engine.plan("<think>\nParis it is.\n</think>\n\n2 million"), scene.engine.plan("3 million")
    conversation = opening(CHAT, f"Paris? {first.mark}")
    reply = await scene.ask(CHAT, conversation)
    await scene.ask(CHAT, conversation.plus(*reply.echo, CHAT.user(f"And Rome? {second.mark}")))
    prompt = scene.engine.model.text(scene.draws[-1].prompt_ids)
    scene.demand("2 million" in prompt and "And Rome?" in prompt, f"the model saw {prompt[-300:]!r}")
    await scene.settle()


async def untrained_results(scene: Scene) -> None:
    """No token of a tool's result is trained, though the model could have written it."""
    first, second = scene.engine.plan(call_text("Paris")), scene.engine.plan("done")
    own_words = json.dumps({"name": "get", "arguments": {"city": "Paris"}})
    conversation = await scene.call_tool(CHAT, opening(CHAT, f"Look. {first.mark}"), f"{own_words} {second.mark}")
    await scene.ask(CHAT, conversation)
    record = await scene.settle()
    trained = sum(sum(row.trained) for row in record.rows)
    sampled = sum(len(drawn.token_ids) for drawn in scene.draws)
    scene.demand(trained == sampled, f"{trained} tokens are trained, {sampled} were sampled")
