"""Every context of a white-box attempt made again from its record, to be compared with what the model saw. Owns no method and no format.

    recorded replies, tools' results ─► the same loop (agents/conversation.py), the same f_CM
                                          │ each call's messages, over the same wire form
                                          ▼
                                        a fresh EpisodeRecorder ─► token ids == prompt_ids on record?

The white box's promise: s_{t+1} = f_CM(s_t, a_t, o_t) can be had again at training, to the token, from what the agent was
answered. What this finds to differ was not made by this method, these tools or this chat format.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from trunkline.agents.context_management import load_method
from trunkline.agents.conversation import Conversations
from trunkline.agents.loop_settings import LoopSettings
from trunkline.agents.openai_shape import wire_message, wire_tool
from trunkline.gateway.base import Renderer
from trunkline.gateway.chat_wire import ChatRequest, decode_chat
from trunkline.gateway.recorder import Context, EpisodeRecorder, Sampled
from trunkline.gateway.wire import Answer
from trunkline.types import Completion, Episode, Message, ToolSpec, walk_to

_TICKS = 50
"""Turns of the event loop in which all conversations that can go on reach their next call."""


@dataclass(frozen=True)
class Rebuilt:
    """How far a record's contexts could be made again."""

    num_calls: int
    """Calls on record."""
    num_same: int
    """Calls before the first whose context differs: all of them if it is exact."""
    difference: str | None
    """What differs first, in words; None if nothing does."""


def rebuild(episode: Episode, settings: LoopSettings, tools: Sequence[ToolSpec], renderer: Renderer) -> Rebuilt:
    """Plays the attempt's conversations again on recorded answers, as far as they are the same. No engine; not inside an event loop."""
    if not episode.completions:
        return Rebuilt(0, 0, None)
    return asyncio.run(_Replay(episode, renderer).play(settings, tools))


@dataclass(frozen=True)
class _Waiting:
    """A call that a conversation makes and that has no answer yet."""

    request: ChatRequest
    context: Context
    answer: asyncio.Future[tuple[dict[str, Any], int] | None]


class _Replay:
    """The model and the tools of one attempt, out of its record."""

    def __init__(self, episode: Episode, renderer: Renderer) -> None:
        self._episode = episode
        self._renderer = renderer
        self._recorder = EpisodeRecorder(episode.episode_id)
        self._session_id = episode.completions[0].session_id
        self._waiting: list[_Waiting] = []
        self._made_by: dict[str, tuple[int, int]] = {}  # by id of a call: the completion that made it, and which of its calls it is

    async def play(self, settings: LoopSettings, tools: Sequence[ToolSpec]) -> Rebuilt:
        conversations = Conversations(
            self._ask,
            self._call_tool,
            _together,
            max_turns=settings.max_turns,
            method=load_method(settings.context),
            depth=settings.depth,
            max_sub_agents=settings.max_sub_agents,
        )
        request: dict[str, Any] = {"model": "", "messages": [wire_message(one) for one in self._path(self._episode.completions[0])]}
        if tools:
            request["tools"] = [wire_tool(spec) for spec in tools]
        working = asyncio.ensure_future(conversations.answer(request))
        try:
            for place, completion in enumerate(self._episode.completions):
                difference = await self._answer(place, completion)
                if difference is not None:
                    return Rebuilt(len(self._episode.completions), place, f"call {place} ({completion.completion_id}): {difference}")
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        return Rebuilt(len(self._episode.completions), len(self._episode.completions), None)

    async def _answer(self, place: int, completion: Completion) -> str | None:
        """Gives a recorded reply to the conversation whose context it was sampled from; what differs, if no context is that one."""
        for _ in range(_TICKS):
            await asyncio.sleep(0)
        same = next((one for one in self._waiting if one.context.prompt_ids == completion.prompt_ids), None)
        if same is None:
            return _difference([one.context.prompt_ids for one in self._waiting], completion.prompt_ids)
        ask, generation = same.context.ask, completion.generation
        parsed = self._renderer.parse(generation.token_ids, ask.tools.specs if ask.may_call else ())
        sampled = Sampled(
            completion.completion_id, self._session_id, generation, completion.sampling, num_discarded=completion.facts.num_discarded
        )
        committed = self._recorder.commit(same.context, sampled, parsed)
        if generation.finish_reason == "abort":  # its client was told to ask again
            return None
        self._waiting.remove(same)
        self._made_by.update({call.call_id: (place, number) for number, call in enumerate(committed.message.tool_calls)})
        body = msgspec.json.decode(same.request.body(Answer((committed,), model="", created=0, text=self._renderer.text)))
        same.answer.set_result((body["choices"][0]["message"], body["usage"]["total_tokens"]))
        return None

    async def _ask(self, body: dict[str, Any]) -> tuple[dict[str, Any], int] | None:
        request = decode_chat(msgspec.json.encode(body))
        context = self._recorder.context(self._session_id, request.ask, self._renderer)
        self._waiting.append(_Waiting(request, context, asyncio.get_running_loop().create_future()))
        return await self._waiting[-1].answer

    async def _call_tool(self, call: dict[str, Any]) -> str:
        """What the tool said, from the next context that shows the turn; a result that no context ever showed changes none.

        The turn is known by its words: in the record, where each message is stored once, a call that is made again in the same
        context has the id of the first.
        """
        place, number = self._made_by[call["id"]]
        turn = _words(self._episode.messages[self._episode.completions[place].reply_node].message)
        for later in self._episode.completions[place + 1 :]:
            path = self._path(later)
            newest = next((start for start in reversed(range(len(path))) if _words(path[start]) == turn), None)
            if newest is not None and len(path) > newest + 1 + number:
                return path[newest + 1 + number].content
        return ""

    def _path(self, completion: Completion) -> tuple[Message, ...]:
        """The messages of its prompt."""
        messages = self._episode.messages
        return tuple([messages[node].message for node in walk_to(completion.prompt_node, messages)])


def _words(message: Message) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    return message.role, message.content, tuple((call.name, call.arguments) for call in message.tool_calls)


async def _together(work: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    return list(await asyncio.gather(*work))


def _difference(rebuilt: Sequence[tuple[int, ...]], recorded: tuple[int, ...]) -> str:
    if not rebuilt:
        return "the conversation had ended by then"
    first = max(_num_equal(one, recorded) for one in rebuilt)
    lengths = " or ".join(str(len(one)) for one in rebuilt)
    return f"{len(recorded)} tokens on record, {lengths} made again; the first that differs is token {first}"


def _num_equal(left: Sequence[int], right: Sequence[int]) -> int:
    return next((place for place, (one, other) in enumerate(zip(left, right, strict=False)) if one != other), min(len(left), len(right)))
