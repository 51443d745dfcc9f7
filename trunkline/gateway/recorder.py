"""One episode's record: its message tree, its completions, and which of them a new request continues. Owns no HTTP, no engine.

messages of a request ──► walk down the tree ──► deepest reply that this session sampled, same tools
                                                    │ found                       │ none
                                                    ▼                             ▼
                                     exact token extension            prompt: a new branch
                                                    └──► turns that the model wrote further on: as sampled, by bridges
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec

from trunkline.gateway.base import Parsed, Renderer
from trunkline.gateway.lineage import Key, rewriting
from trunkline.gateway.sampling import ContextHash, drop_reason, hash_ids
from trunkline.gateway.wire import Ask, Committed
from trunkline.types import CallFacts, Completion, Generation, Lineage, Message, MessageNode, SamplingParams, walk_to


@dataclass(frozen=True)
class Context:
    """The exact tokens that a request is answered from, and where they come from."""

    ask: Ask
    """The request."""
    keys: tuple[Key, ...]
    """What identifies each message in the tree."""
    prompt_ids: tuple[int, ...]
    """What the model sees."""
    parent_id: str | None
    """The completion extended; None for a new branch."""
    num_shared: int
    """Leading tokens taken from the parent's prompt and completion."""
    lineage: Lineage
    """How it came out of earlier contexts."""
    num_foreign: int
    """Assistant turns that this episode's model never sampled."""
    hash: ContextHash
    """Of prompt_ids."""
    known: _Walk
    """How far the tree had these messages already."""


@dataclass(frozen=True)
class Sampled:
    """What the engine made of a context."""

    completion_id: str
    """Unique in the run."""
    session_id: str
    """Who asked."""
    generation: Generation
    """The engine's answer, up to the client's stop string."""
    sampling: SamplingParams
    """What it was asked."""
    num_discarded: int = 0
    """Tokens sampled after the stop string."""
    stop_string: str | None = None
    """The stop string, if one ended it."""


class _Turn(NamedTuple):
    """An assistant turn of a request that the model sampled."""

    place: int
    """Which message it is."""
    completion: Completion
    """What was sampled."""


class _Walk(NamedTuple):
    """How far a request's messages lead down the tree."""

    node: int | None
    """Of the last message that the tree has; None if it has none."""
    num_messages: int
    """That it has."""
    extended: tuple[Completion, int] | None
    """The completion whose messages and reply are the longest prefix, with the number of these messages."""


class EpisodeRecorder:
    """The record of one episode, shared by its sessions. Every method is synchronous: calls commit one after another."""

    def __init__(self, episode_id: str) -> None:
        self.episode_id = episode_id
        self.nodes: list[MessageNode] = []
        self.completions: list[Completion] = []
        self._children: dict[tuple[int | None, Hashable], int] = {}
        self._replies: dict[tuple[int, str, bytes], Completion] = {}
        self._turns: dict[tuple[Key, tuple[str, ...] | None], Completion] = {}  # the latest, by words and ids of calls, and by words
        self._asked: set[tuple[int, str, bytes]] = set()
        self._ends: dict[str, dict[str, tuple[Key, ...]]] = {}  # by session and completion: conversations that no call extends
        self._repeats: dict[bytes, set[int]] = {}
        self._hashes: dict[str, ContextHash] = {}  # of a completion's prompt and reply: a context that extends it hashes the rest only

    # --- before a call --------------------------------------------------------------------------------------------

    def context(self, session_id: str, ask: Ask, renderer: Renderer) -> Context:
        """Finds the completion that the messages extend furthest and continues its tokens; else renders a new branch.

        Assistant turns that the model wrote are never written again from the client's echo: their tokens are those
        sampled, wherever the format can go on from them.
        """
        messages, keys, turns, is_dropped = self._own_turns(ask)
        walk = self._walk(session_id, keys, ask.tools.key)
        extended = walk.extended
        prompt_ids, parent, num_shared = self._tokens(messages, turns, extended, ask, renderer)
        if extended is not None and not (turns and turns[-1].place >= extended[1]):
            lineage: Lineage = "extension" if parent is not None else "reformatted"
        else:
            lineage = "dropped_reasoning" if is_dropped else self._rewriting(session_id, keys)
        if walk.num_messages == len(keys) and (walk.node, session_id, ask.tools.key) in self._asked:
            lineage = "repeat"
        return Context(
            ask=ask if messages is ask.messages else replace(ask, messages=messages),
            keys=keys,
            prompt_ids=prompt_ids,
            parent_id=parent.completion_id if parent else None,
            num_shared=num_shared,
            lineage=lineage,
            num_foreign=sum(key[0] == "assistant" for key in keys) - len(turns),
            hash=hash_ids(prompt_ids[num_shared:], self._hashes[parent.completion_id] if parent else None),
            known=walk,
        )

    def conversation(self, completion_id: str) -> tuple[Message, ...] | None:
        """The messages that a completion was sampled from, and its reply; None if this episode has no such completion."""
        found = next((one for one in reversed(self.completions) if one.completion_id == completion_id), None)
        if found is None:
            return None
        return tuple([self.nodes[node].message for node in walk_to(found.reply_node, self.nodes)])

    def take_repeat(self, digest: bytes) -> int:
        """The smallest number not taken by another call of this context: 0 for its first."""
        taken = self._repeats.setdefault(digest, set())
        repeat = next(number for number in range(len(taken) + 1) if number not in taken)
        taken.add(repeat)
        return repeat

    def free_repeat(self, digest: bytes, repeat: int) -> None:
        """A call that sampled nothing leaves no trace: its retry gets the same seed."""
        self._repeats[digest].discard(repeat)

    # --- after it -------------------------------------------------------------------------------------------------

    def commit(self, context: Context, sampled: Sampled, parsed: Parsed) -> Committed:
        """Enters a sampled call; `parsed` is what its tokens say. Calls without an id are named after the reply's node."""
        num_before = len(self.nodes)
        prompt_node, num_known, _ = context.known
        for prompt_message, key in zip(context.ask.messages[num_known:], context.keys[num_known:], strict=True):
            prompt_node = self._node(prompt_node, key, prompt_message)
        assert prompt_node is not None, "a request has at least one message"
        key = next(_message_keys((parsed.message,)))
        reply_node = self._children.get((prompt_node, key))
        if reply_node is None:
            reply_node = self._node(prompt_node, key, _with_call_ids(parsed.message, len(self.nodes)))
        completion = Completion(
            completion_id=sampled.completion_id,
            session_id=sampled.session_id,
            prompt_ids=context.prompt_ids,
            generation=_with_own_routes(sampled.generation, context.num_shared),
            sampling=sampled.sampling,
            prompt_node=prompt_node,
            reply_node=reply_node,
            parent_id=context.parent_id,
            num_shared=context.num_shared,
            drop_reason=drop_reason(sampled.sampling, sampled.generation),
            facts=_facts(context, sampled, parsed),
        )
        self.completions.append(completion)
        self._asked.add((prompt_node, completion.session_id, context.ask.tools.key))
        if sampled.generation.finish_reason != "abort":  # nobody was told of an aborted one, so nobody can extend it
            self._remember(completion, context, key)
        return Committed(completion, self.nodes[reply_node].message, tuple(self.nodes[num_before:]), sampled.stop_string)

    def _remember(self, completion: Completion, context: Context, reply_key: Key) -> None:
        self._replies[completion.reply_node, completion.session_id, context.ask.tools.key] = completion
        call_ids = tuple([call.call_id for call in self._reply(completion).tool_calls])
        for key in (reply_key, _without_reasoning(reply_key)):
            self._turns[key, call_ids] = self._turns[key, None] = completion
        ends = self._ends.setdefault(completion.session_id, {})
        ends.pop(completion.parent_id or "", None)
        ends[completion.completion_id] = (*context.keys, reply_key)
        self._hashes[completion.completion_id] = hash_ids(completion.generation.token_ids, context.hash)

    # --- finding --------------------------------------------------------------------------------------------------

    def _own_turns(self, ask: Ask) -> tuple[tuple[Message, ...], tuple[Key, ...], list[_Turn], bool]:
        """The messages with their thinking restored where the client's API has no place for it, and their keys; which turns
        the model sampled; and whether the client took the thinking out of one of them."""
        messages, keys, turns, is_dropped = ask.messages, list(_message_keys(ask.messages)), [], False
        keeps_reasoning = ask.keeps_reasoning or any(message.reasoning for message in messages)
        restored: dict[int, Message] = {}
        for place, key in enumerate(keys):
            if key[0] != "assistant":
                continue
            message = messages[place]
            completion = self._likeliest(key if keeps_reasoning else _without_reasoning(key), message)
            if completion is None:
                is_dropped = is_dropped or (not message.reasoning and (_without_reasoning(key), None) in self._turns)
                continue
            turns.append(_Turn(place, completion))
            reasoning = self._reply(completion).reasoning
            if reasoning != message.reasoning:
                restored[place] = replace(message, reasoning=reasoning)
                keys[place] = (*_without_reasoning(key), reasoning.strip())
        if restored:
            messages = tuple([restored.get(place, message) for place, message in enumerate(messages)])
        return messages, tuple(keys), turns, is_dropped

    def _likeliest(self, key: Key, message: Message) -> Completion | None:
        """Of replies with the same words the one whose calls have the ids of the echo, else the latest."""
        ids = tuple([call.call_id for call in message.tool_calls])
        return self._turns.get((key, ids)) or self._turns.get((key, None))

    def _reply(self, completion: Completion) -> Message:
        return self.nodes[completion.reply_node].message

    def _walk(self, session_id: str, keys: Sequence[Key], tools_key: bytes) -> _Walk:
        """Down the tree as far as it has these messages."""
        children, replies = self._children, self._replies
        last: int | None = None
        best: tuple[Completion, int] | None = None
        for num_before, key in enumerate(keys):
            node = children.get((last, key))
            if node is None:
                return _Walk(last, num_before, best)
            last = node
            if key[0] == "assistant":
                completion = replies.get((node, session_id, tools_key))
                if completion is not None:
                    best = (completion, num_before + 1)
        return _Walk(last, len(keys), best)

    def _rewriting(self, session_id: str, keys: tuple[Key, ...]) -> Lineage:
        if not self.completions:
            return "first"
        mine = [one for one in self.completions if one.session_id == session_id]
        return rewriting(keys, list(self._ends.get(session_id, {}).values()), [self._reply(one).content for one in mine])

    # --- tokens ---------------------------------------------------------------------------------------------------

    def _tokens(
        self,
        messages: tuple[Message, ...],
        turns: Sequence[_Turn],
        extended: tuple[Completion, int] | None,
        ask: Ask,
        renderer: Renderer,
    ) -> tuple[tuple[int, ...], Completion | None, int]:
        """The context's ids, the completion that they extend, and how many of them are its."""
        if extended is not None:
            parent, num_messages = extended
            later = [turn for turn in turns if turn.place >= num_messages]
            bridged = _bridged(parent.prompt_ids, parent, num_messages, later, messages, ask, renderer)
            num_shared = len(parent.prompt_ids) + parent.num_sampled
            # A renderer of another house may rewrite what it promised to keep; then it is a branch like any other.
            if bridged is not None and _begins_with(bridged, parent):
                return bridged, parent, num_shared
        prompt_ids = self._branch(messages, turns, ask, renderer)
        if extended is not None:  # a format that writes its past anew may still write the same
            sampled = parent.prompt_ids + parent.generation.token_ids
            if prompt_ids[: len(sampled)] == sampled:
                return prompt_ids, parent, len(sampled)
        return prompt_ids, None, 0

    def _branch(self, messages: tuple[Message, ...], turns: Sequence[_Turn], ask: Ask, renderer: Renderer) -> tuple[int, ...]:
        if turns and turns[0].place > 0:
            first, *later = turns
            start = renderer.prompt(messages[: first.place], ask.tools.specs)
            bridged = _bridged(start, first.completion, first.place + 1, later, messages, ask, renderer)
            if bridged is not None:
                return bridged
        return renderer.prompt(messages, ask.tools.specs)

    def _node(self, parent: int | None, key: Hashable, message: Message) -> int:
        found = self._children.get((parent, key))
        if found is None:
            found = self._children[parent, key] = len(self.nodes)
            self.nodes.append(MessageNode(message, parent))
        return found


def _begins_with(token_ids: tuple[int, ...], parent: Completion) -> bool:
    """Whether they begin with all of the parent's."""
    num_prompt = len(parent.prompt_ids)
    is_extension = token_ids[num_prompt : num_prompt + parent.num_sampled] == parent.generation.token_ids
    return is_extension and token_ids[:num_prompt] == parent.prompt_ids


def _bridged(
    prompt_ids: tuple[int, ...],
    completion: Completion,
    done: int,
    later: Sequence[_Turn],
    messages: Sequence[Message],
    ask: Ask,
    renderer: Renderer,
) -> tuple[int, ...] | None:
    """From a context and what was sampled from it on to the end of `messages`, `done` of which are in it; None if the format cannot."""
    sampled = completion.generation.token_ids
    for turn in later:
        bridged = renderer.bridge(prompt_ids, sampled, messages[done : turn.place], ask.tools.specs)
        if bridged is None:
            return None
        prompt_ids, sampled, done = bridged, turn.completion.generation.token_ids, turn.place + 1
    return renderer.bridge(prompt_ids, sampled, messages[done:], ask.tools.specs)


def _with_own_routes(generation: Generation, num_shared: int) -> Generation:
    """Without the routes that its parent has on record: of all that is shared but the last token, which the parent only sampled."""
    routes = generation.routes
    if routes is None or routes.first >= num_shared - 1:
        return generation
    return replace(generation, routes=routes.rows(num_shared - 1, routes.first + routes.num_tokens))


def _facts(context: Context, sampled: Sampled, parsed: Parsed) -> CallFacts:
    ask = context.ask
    return CallFacts(
        wire=ask.wire,
        lineage=context.lineage,
        asked=ask.asked.stated(),
        not_honoured=ask.not_honoured,
        num_discarded=sampled.num_discarded,
        format_error=parsed.format_error,
        num_foreign=context.num_foreign,
    )


def _message_keys(messages: Sequence[Message]) -> Iterator[Key]:
    """What makes two messages the same turn: role, text, calls by name and parsed arguments, which call a result answers.

    Ids of calls are the client's to choose, so a result is known by the place of its call in the last assistant turn. Blanks
    around an assistant's text are no difference: clients strip them.
    """
    call_ids: tuple[str, ...] = ()
    for message in messages:
        if message.role == "assistant":
            call_ids = tuple([call.call_id for call in message.tool_calls])
            yield _assistant_key(message)
        elif message.role == "tool":
            call_id = message.tool_call_id
            yield ("tool", message.content, call_ids.index(call_id) if call_id in call_ids else call_id)
        else:
            yield (message.role, message.content)


def _assistant_key(message: Message) -> Key:
    calls = tuple([(call.name, _canonical_json(call.arguments)) for call in message.tool_calls])
    return ("assistant", message.content.strip(), calls, message.reasoning.strip())


def _without_reasoning(key: Key) -> Key:
    return key[:3]


def _number(text: str) -> float | int:
    """JavaScript writes 5000.0 as 5000."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


_decode_canonical = msgspec.json.Decoder(float_hook=_number).decode


@functools.lru_cache(maxsize=4096)
def _canonical_json(text: str) -> str:
    try:
        return msgspec.json.encode(_decode_canonical(text), order="sorted").decode()
    except (msgspec.DecodeError, RecursionError):
        return text


def _with_call_ids(message: Message, node: int) -> Message:
    if all(call.call_id for call in message.tool_calls):
        return message
    calls = tuple(replace(call, call_id=call.call_id or f"call_{node}_{place}") for place, call in enumerate(message.tool_calls))
    return replace(message, tool_calls=calls)
