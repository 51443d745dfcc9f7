"""One episode's record: its message tree, its completions, and which of them a new request extends. Owns no HTTP, no engine.

messages of a request ──► walk down the tree ──► deepest reply that this session sampled, same tools
                                                    │ found                       │ none
                                                    ▼                             ▼
                                     bridge: exact token extension        prompt: a new branch
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from trunkline.gateway.base import Renderer
from trunkline.gateway.sampling import AskedSampling, drop_reason
from trunkline.types import Completion, Generation, Message, MessageNode, SamplingParams, ToolSpec


@dataclass(frozen=True)
class ToolOffer:
    """The tools of a request."""

    specs: tuple[ToolSpec, ...] = ()
    """What the model may call."""
    key: bytes = b""
    """Equal if and only if the specs are equal."""


@dataclass(frozen=True)
class Context:
    """The exact tokens that a request is answered from, and where they come from."""

    messages: tuple[Message, ...]
    """The request's messages."""
    keys: tuple[Hashable, ...]
    """What identifies each message in the tree."""
    tools: ToolOffer
    """The request's tools."""
    prompt_ids: tuple[int, ...]
    """What the model sees."""
    parent_id: str | None
    """The completion extended; None for a new branch."""
    num_shared: int
    """Leading tokens taken from the parent's prompt and completion."""


@dataclass(frozen=True)
class Sampled:
    """What the engine made of a context."""

    completion_id: str
    """Unique in the run."""
    session_id: str
    """Who asked."""
    generation: Generation
    """The engine's answer."""
    sampling: SamplingParams
    """What it was asked."""
    asked: AskedSampling
    """What the client had asked."""


@dataclass(frozen=True)
class Committed:
    """A call as it entered the record."""

    completion: Completion
    """The atomic training sample."""
    message: Message
    """The reply, as the agent gets it."""
    new_nodes: tuple[MessageNode, ...]
    """Nodes that it added to the tree, in index order."""


class EpisodeRecorder:
    """The record of one episode, shared by its sessions. Every method is synchronous: calls commit one after another."""

    def __init__(self, episode_id: str) -> None:
        self.episode_id = episode_id
        self.nodes: list[MessageNode] = []
        self.completions: list[Completion] = []
        self.asked: dict[str, AskedSampling] = {}
        self._children: dict[tuple[int | None, Hashable], int] = {}
        self._replies: dict[tuple[int, str, bytes], Completion] = {}
        self._repeats: dict[bytes, set[int]] = {}

    def context(self, session_id: str, messages: tuple[Message, ...], tools: ToolOffer, renderer: Renderer) -> Context:
        """Finds the completion that `messages` extend furthest and continues its tokens; else renders from scratch."""
        keys = tuple(_message_keys(messages))
        extended = self._extended(session_id, keys, tools)
        if extended is not None:
            parent, num_messages = extended
            sampled = parent.generation.token_ids
            bridged = renderer.bridge(parent.prompt_ids, sampled, messages[num_messages:], tools.specs)
            num_shared = len(parent.prompt_ids) + len(sampled)
            # A renderer of another house may rewrite what it promised to keep; then it is a branch like any other.
            if bridged is not None and bridged[:num_shared] == parent.prompt_ids + sampled:
                return Context(messages, keys, tools, bridged, parent.completion_id, num_shared)
        return Context(messages, keys, tools, renderer.prompt(messages, tools.specs), None, 0)

    def take_repeat(self, digest: bytes) -> int:
        """The smallest number not taken by another call of this context: 0 for its first."""
        taken = self._repeats.setdefault(digest, set())
        repeat = next(number for number in range(len(taken) + 1) if number not in taken)
        taken.add(repeat)
        return repeat

    def free_repeat(self, digest: bytes, repeat: int) -> None:
        """A call that sampled nothing leaves no trace: its retry gets the same seed."""
        self._repeats[digest].discard(repeat)

    def commit(self, context: Context, sampled: Sampled, message: Message) -> Committed:
        """Enters a sampled call; `message` is what its tokens say. Calls without an id are named after the reply's node."""
        num_before = len(self.nodes)
        prompt_node: int | None = None
        for prompt_message, key in zip(context.messages, context.keys, strict=True):
            prompt_node = self._node(prompt_node, key, prompt_message)
        assert prompt_node is not None, "a request has at least one message"
        key = next(_message_keys((message,)))
        reply_node = self._children.get((prompt_node, key))
        named = _with_call_ids(message, len(self.nodes))
        if reply_node is None:
            reply_node = self._node(prompt_node, key, named)
        completion = Completion(
            completion_id=sampled.completion_id,
            session_id=sampled.session_id,
            prompt_ids=context.prompt_ids,
            generation=sampled.generation,
            sampling=sampled.sampling,
            prompt_node=prompt_node,
            reply_node=reply_node,
            parent_id=context.parent_id,
            num_shared=context.num_shared,
            drop_reason=drop_reason(sampled.sampling, sampled.generation),
        )
        self.completions.append(completion)
        self.asked[sampled.completion_id] = sampled.asked
        if sampled.generation.finish_reason != "abort":  # nobody was told of an aborted one, so nobody can extend it
            self._replies[reply_node, sampled.session_id, context.tools.key] = completion
        return Committed(completion, self.nodes[reply_node].message, tuple(self.nodes[num_before:]))

    def _extended(self, session_id: str, keys: Sequence[Hashable], tools: ToolOffer) -> tuple[Completion, int] | None:
        """The completion whose messages and reply are the longest prefix, the latest of equals; and how many messages."""
        node: int | None = None
        best: tuple[Completion, int] | None = None
        for depth, key in enumerate(keys, start=1):
            node = self._children.get((node, key))
            if node is None:
                break
            completion = self._replies.get((node, session_id, tools.key))
            if completion is not None:
                best = (completion, depth)
        return best

    def _node(self, parent: int | None, key: Hashable, message: Message) -> int:
        found = self._children.get((parent, key))
        if found is None:
            found = self._children[parent, key] = len(self.nodes)
            self.nodes.append(MessageNode(message, parent))
        return found


def _message_keys(messages: Sequence[Message]) -> Iterator[Hashable]:
    """What makes two messages the same turn: role, text, calls by name and parsed arguments, which call a result answers.

    Ids of calls are the client's to choose, so a result is known by the place of its call in the last assistant turn.
    """
    call_ids: tuple[str, ...] = ()
    for message in messages:
        if message.role == "assistant":
            call_ids = tuple(call.call_id for call in message.tool_calls)
            calls = tuple((call.name, _canonical_json(call.arguments)) for call in message.tool_calls)
            yield ("assistant", message.content, calls)
        elif message.role == "tool":
            call_id = message.tool_call_id
            yield ("tool", message.content, call_ids.index(call_id) if call_id in call_ids else call_id)
        else:
            yield (message.role, message.content)


@functools.lru_cache(maxsize=4096)
def _canonical_json(text: str) -> str:
    try:
        return msgspec.json.encode(msgspec.json.decode(text), order="sorted").decode()
    except msgspec.DecodeError:
        return text


def _with_call_ids(message: Message, node: int) -> Message:
    if all(call.call_id for call in message.tool_calls):
        return message
    calls = tuple(replace(call, call_id=call.call_id or f"call_{node}_{place}") for place, call in enumerate(message.tool_calls))
    return replace(message, tool_calls=calls)
