"""Cases of what real clients do beside the plain loop: extra keys, other spellings of the same turn, rewinds, several sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from trunkline.bench.conformance.record import problems
from trunkline.bench.conformance.scene import CaseFailed, CaseUnsupported, Scene, call_text, opening
from trunkline.bench.conformance.wires import CHAT, MESSAGES, RESPONSES, TOOL, Conversation


async def extra_keys_in_echo(scene: Scene) -> None:
    """A turn sent back with the keys that SDKs add to it (refusal, annotations, audio, index, ...) is the same turn."""
    first, second = scene.engine.plan(call_text("Paris")), scene.engine.plan("done")
    conversation = await scene.call_tool(CHAT, opening(CHAT, f"Look. {first.mark}"), f"2 million {second.mark}")
    echo = conversation.items[1]
    calls = [{**call, "index": number} for number, call in enumerate(echo["tool_calls"])]
    dumped = {**echo, "tool_calls": calls, "refusal": None, "annotations": [], "audio": None, "function_call": None}
    await scene.ask(CHAT, _with_item(conversation, 1, dumped))
    scene.demand_extensions()
    await scene.settle()


async def content_as_parts(scene: Scene) -> None:
    """A client that writes the same text now as a string, now as a list of text parts, does not change its history."""
    first, second = scene.engine.plan(f"I look.\n{call_text('Paris')}"), scene.engine.plan("done")
    conversation = await scene.call_tool(CHAT, opening(CHAT, f"Look. {first.mark}"), f"2 million {second.mark}")
    items = tuple(_as_parts(item) for item in conversation.items)
    await scene.ask(CHAT, replace(conversation, items=items))
    scene.demand_extensions()
    await scene.settle()


async def renamed_call_ids(scene: Scene) -> None:
    """A client that gives calls ids of its own, in the call and in its result alike, continues the sample."""
    first, second = scene.engine.plan(call_text("Paris")), scene.engine.plan("done")
    conversation = await scene.call_tool(CHAT, opening(CHAT, f"Look. {first.mark}"), f"2 million {second.mark}")
    echo, result = conversation.items[1:]
    renamed = {**echo, "tool_calls": [{**echo["tool_calls"][0], "id": "mine00001"}]}
    await scene.ask(CHAT, replace(conversation, items=(conversation.items[0], renamed, {**result, "tool_call_id": "mine00001"})))
    scene.demand_extensions()
    await scene.settle()


async def spelled_mark(scene: Scene) -> None:
    """A model that spells a mark of its chat format in letters: the agent gets the letters, and they stay the sampled tokens."""
    model = scene.engine.model
    first = scene.engine.plan((*model.drifted_ids(f"The mark is <|im_end|>, he said.\n{call_text('Paris')}"), model.end_id))
    second = scene.engine.plan("done")
    conversation = opening(CHAT, f"Look. {first.mark}")
    reply = await scene.ask(CHAT, conversation)
    scene.demand("<|im_end|>, he said." in reply.text, f"the agent got {reply.text!r}")
    scene.demand(len(reply.calls) == 1, f"the agent got the calls {reply.calls}")
    results = CHAT.results([(reply.calls[0].call_id, f"2 million {second.mark}")])
    await scene.ask(CHAT, conversation.plus(*reply.echo, *results))
    scene.demand_extensions()
    await scene.settle()


async def cut_in_a_character(scene: Scene) -> None:
    """A completion that ends inside a character of several bytes is answered and recorded."""
    model = scene.engine.model
    cut = scene.engine.plan((*model.ids("hello "), *model.byte_ids("🌍")[:2], model.end_id))
    reply = await scene.ask(CHAT, opening(CHAT, f"Speak. {cut.mark}"))
    scene.demand(reply.text.startswith("hello"), f"the agent got {reply.text!r}")
    await scene.settle()


async def rewind(scene: Scene) -> None:
    """An agent that goes back to an earlier turn and on another way (a tree search) continues the tokens sampled there."""
    first, second, third = scene.engine.plan(call_text("Paris")), scene.engine.plan(call_text("Rome")), scene.engine.plan("done")
    conversation = opening(CHAT, f"Compare. {first.mark}")
    reply = await scene.ask(CHAT, conversation)
    scene.demand(len(reply.calls) == 1, f"the agent got {reply.calls}")
    for text, plan in (("2 million", second), ("no answer", third), ("3 million", third)):
        results = CHAT.results([(reply.calls[0].call_id, f"{text} {plan.mark}")])
        await scene.ask(CHAT, conversation.plus(*reply.echo, *results))
        scene.demand_extension(scene.draws[0], scene.draws[-1])
    await scene.settle()


async def fork_at_once(scene: Scene) -> None:
    """Four ways on from one turn, asked at once: each continues its sampled tokens, which are trained once."""
    first = scene.engine.plan(call_text("Paris"))
    conversation = opening(CHAT, f"Compare. {first.mark}")
    reply = await scene.ask(CHAT, conversation)
    scene.demand(len(reply.calls) == 1, f"the agent got {reply.calls}")

    async def go(way: int) -> None:
        plan = scene.engine.plan(f"way {way}")
        results = CHAT.results([(reply.calls[0].call_id, f"{way} million {plan.mark}")])
        answered = await scene.ask(CHAT, conversation.plus(*reply.echo, *results))
        scene.demand(answered.text == f"way {way}", f"way {way} got {answered.text!r}")

    await asyncio.gather(*(go(way) for way in range(4)))
    for drawn in scene.draws[1:]:
        scene.demand_extension(scene.draws[0], drawn)
    await scene.settle()


async def changed_tools(scene: Scene) -> None:
    """An agent that offers another tool from now on: the model sees both, and every sample stays exact."""
    first, second = scene.engine.plan(call_text("Paris")), scene.engine.plan("done")
    conversation = await scene.call_tool(CHAT, opening(CHAT, f"Look. {first.mark}"), f"2 million {second.mark}")
    other = {**TOOL, "function": {**TOOL["function"], "name": "put"}}
    await scene.ask(CHAT, replace(conversation, tools=(TOOL, other)))
    prompt = scene.engine.model.text(scene.draws[-1].prompt_ids)
    scene.demand('"name": "put"' in prompt, "the new tool is not in the prompt")
    await scene.settle()


async def two_sessions(scene: Scene) -> None:
    """Two sessions with the same words: each record holds its own draws and no other's."""
    first, second = scene.engine.plan(call_text("Paris")), scene.engine.plan("done")
    conversation = opening(CHAT, f"Look. {first.mark}")
    other = Scene.beside(scene, await scene.target.open())
    reply = await scene.ask(CHAT, conversation)
    num_own = len(scene.draws)
    theirs = await other.call_tool(CHAT, conversation, f"2 million {second.mark}")
    await other.ask(CHAT, theirs)
    scene.demand(len(reply.calls) == 1, f"the agent got {reply.calls}")
    own, others = scene.draws[:num_own], scene.draws[num_own:]
    await asyncio.sleep(0.2)
    for name, draws, record in (("first", own, await scene.record()), ("second", others, await other.record())):
        found = problems(draws, record)
        if found:
            raise CaseFailed(f"the {name} session's record: {found[0]}")


async def client_logprobs(scene: Scene) -> None:
    """A client that asks for log-probabilities gets the engine's, token by token."""
    plan = scene.engine.plan("hello world")
    answer = await scene.post(CHAT, CHAT.body(opening(CHAT, f"Speak. {plan.mark}"), logprobs=True))
    if answer.status in (400, 422):
        raise CaseUnsupported(f"logprobs is refused with {answer.status}: {answer.text[:120]}")
    scene.demand(answer.status == 200, f"answers {answer.status}: {answer.text[:200]}")
    told = answer.json()["choices"][0].get("logprobs")
    scene.demand(bool(told and told.get("content")), "logprobs = true was asked, the answer has none and says nothing about it")
    drawn = scene.draws[-1]
    values = [entry["logprob"] for entry in told["content"]]
    said = list(drawn.logprobs)
    is_equal = values in (said, said[:-1])  # with the end of the turn or without it
    scene.demand(is_equal, f"the engine said {said[:4]}, the client got {values[:4]} ({len(values)} of {len(said)} tokens)")
    await scene.settle()


async def previous_response(scene: Scene) -> None:
    """Responses with previous_response_id instead of a history: the new prompt continues the earlier response's tokens."""
    scene.require(RESPONSES.name)
    first, second = scene.engine.plan(call_text("Paris")), scene.engine.plan("done")
    conversation = opening(RESPONSES, f"Look. {first.mark}")
    answer = await scene.post(RESPONSES, RESPONSES.body(conversation, store=True))
    scene.demand(answer.status == 200, f"answers {answer.status}: {answer.text[:200]}")
    body = answer.json()
    reply = RESPONSES.read(body)
    scene.demand(len(reply.calls) == 1, f"the agent got {reply.calls}")
    results = RESPONSES.results([(reply.calls[0].call_id, f"2 million {second.mark}")])
    later = Conversation(results, conversation.system, conversation.tools)
    answer = await scene.post(RESPONSES, RESPONSES.body(later, previous_response_id=body["id"]))
    if answer.status in (400, 404, 422):
        raise CaseUnsupported(f"previous_response_id is refused with {answer.status}: {answer.text[:160]}")
    scene.demand(answer.status == 200, f"answers {answer.status}: {answer.text[:200]}")
    scene.demand_extensions()
    await scene.settle()


async def anthropic_blocks(scene: Scene) -> None:
    """Messages as Claude Code sends them: a system prompt of blocks, results as lists of blocks, marked errors, extra metadata."""
    first, second = scene.engine.plan(f"I look.\n{call_text('Paris')}"), scene.engine.plan("done")
    blocks = [{"type": "text", "text": "You answer."}, {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    conversation = opening(MESSAGES, f"Look. {first.mark}", system=None)
    more: dict[str, Any] = {"system": blocks, "metadata": {"user_id": "user_1"}}
    reply = await scene.ask(MESSAGES, conversation, **more)
    scene.demand(len(reply.calls) == 1 and reply.text.strip() == "I look.", f"the agent got {reply.text!r} and {reply.calls}")
    content = [{"type": "text", "text": "not found"}, {"type": "text", "text": second.mark}]
    result = {"type": "tool_result", "tool_use_id": reply.calls[0].call_id, "is_error": True, "content": content}
    await scene.ask(MESSAGES, conversation.plus(*reply.echo, {"role": "user", "content": [result]}), **more)
    prompt = scene.engine.model.text(scene.draws[-1].prompt_ids)
    scene.demand("Be brief." in prompt and "not found" in prompt, f"the model saw {prompt[-300:]!r}")
    scene.demand_extensions()
    await scene.settle()


async def reminder_beside_a_result(scene: Scene) -> None:
    """Messages with text behind a tool_result in one user message, as Claude Code sends its reminders: both reach the model."""
    first, second = scene.engine.plan(call_text("Paris")), scene.engine.plan("done")
    conversation = opening(MESSAGES, f"Look. {first.mark}")
    reply = await scene.ask(MESSAGES, conversation)
    scene.demand(len(reply.calls) == 1, f"the agent got {reply.calls}")
    result = {"type": "tool_result", "tool_use_id": reply.calls[0].call_id, "content": "2 million"}
    reminder = {"type": "text", "text": f"Be brief. {second.mark}"}
    await scene.ask(MESSAGES, conversation.plus(*reply.echo, {"role": "user", "content": [result, reminder]}))
    prompt = scene.engine.model.text(scene.draws[-1].prompt_ids)
    scene.demand("2 million" in prompt and "Be brief." in prompt, f"the model saw {prompt[-300:]!r}")
    await scene.settle()


def _as_parts(item: Mapping[str, Any]) -> Mapping[str, Any]:
    content = item.get("content")
    return {**item, "content": [{"type": "text", "text": content}]} if isinstance(content, str) and content else item


def _with_item(conversation: Conversation, place: int, item: Mapping[str, Any]) -> Conversation:
    return replace(conversation, items=(*conversation.items[:place], item, *conversation.items[place + 1 :]))
