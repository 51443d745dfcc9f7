"""Dataclasses to rows and back, exactly. Owns the encoding of every value; opens no file.

JSON holds what people read (messages, tasks, rewards). A task's payload is JSON data: string keys, lists, finite numbers.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from trunkline.pool.group_commit import Row
from trunkline.types import (
    CallFacts,
    Completion,
    Episode,
    Failure,
    Generation,
    Message,
    MessageNode,
    Reward,
    RoutedExperts,
    SamplingParams,
    SandboxAct,
    Task,
    VersionSpan,
)

Value = TypeVar("Value")

_ROUTES_HEADER = struct.Struct("<IHH")


def call_row(incarnation: int, episode_id: str, completion: Completion) -> Row:
    """One sampled call; of its prompt only what its parent has not."""
    generation = completion.generation
    values = (
        incarnation,
        episode_id,
        completion.completion_id,
        completion.session_id,
        completion.parent_id,
        completion.num_shared,
        pack_ids(completion.prompt_ids[completion.num_shared :]),
        pack_ids(generation.token_ids),
        pack_floats(generation.logprobs),
        generation.finish_reason,
        to_json(generation.version_spans),
        to_json(completion.sampling),
        completion.prompt_node,
        completion.reply_node,
        completion.drop_reason,
        to_json(completion.facts),
        None if generation.routes is None else pack_routes(generation.routes),
    )
    return Row("calls", values)


def completion_of(row: Sequence[Any], recorded: Mapping[str, Completion]) -> Completion:
    """The inverse of call_row; `recorded` holds the episode's earlier calls by id."""
    _, _, completion_id, session_id, parent_id, num_shared, new_prompt_ids, token_ids, logprobs, *rest = row
    finish_reason, version_spans, sampling, prompt_node, reply_node, drop_reason, *added = rest
    shared = context_of(recorded[parent_id])[:num_shared] if num_shared else ()
    generation = Generation(
        unpack_ids(token_ids),
        unpack_floats(logprobs),
        finish_reason,
        from_json(version_spans, tuple[VersionSpan, ...]),
        unpack_routes(added[1]) if len(added) > 1 and added[1] is not None else None,  # not in schemas 1 to 3
    )
    return Completion(
        completion_id=completion_id,
        session_id=session_id,
        prompt_ids=shared + unpack_ids(new_prompt_ids),
        generation=generation,
        sampling=from_json(sampling, SamplingParams),
        prompt_node=prompt_node,
        reply_node=reply_node,
        parent_id=parent_id,
        num_shared=num_shared,
        drop_reason=drop_reason,
        facts=from_json(added[0], CallFacts) if added else CallFacts(),  # not in schemas 1 and 2
    )


def context_of(completion: Completion) -> tuple[int, ...]:
    """All tokens of a call: its prompt, then what was sampled."""
    return completion.prompt_ids + completion.generation.token_ids


def message_row(incarnation: int, episode_id: str, node: int, content: MessageNode) -> Row:
    """One message of an episode's tree."""
    return Row("messages", (incarnation, episode_id, node, content.parent, to_json(content.message)))


def message_of(parent: int | None, message: str) -> MessageNode:
    """The inverse of message_row."""
    return MessageNode(from_json(message, Message), parent)


def episode_row(incarnation: int, episode: Episode) -> Row:
    """An episode without its calls and messages. Raises ValueError on a reward that is not finite."""
    if not all(math.isfinite(reward.value) for reward in episode.rewards):
        raise ValueError(f"episode {episode.episode_id}: rewards are finite numbers, got {episode.rewards}; correct its verifier")
    values = (
        incarnation,
        episode.episode_id,
        episode.group_id,
        episode.task_id,
        episode.attempt,
        episode.status,
        to_json(episode.rewards),
        None if episode.failure is None else to_json(episode.failure),
        episode.duration_s,
        to_json([completion.completion_id for completion in episode.completions]),
        len(episode.messages),
        to_json(episode.acts),
        to_json(episode.patch),
    )
    return Row("episodes", values)


def episode_of(row: Sequence[Any], calls: Mapping[str, Completion], messages: Sequence[MessageNode]) -> Episode:
    """The inverse of episode_row; `calls` and `messages` may hold more than belongs to the episode."""
    _, episode_id, group_id, task_id, attempt, status, rewards, failure, duration_s, completion_ids, num_messages, *added = row
    return Episode(
        episode_id=episode_id,
        group_id=group_id,
        task_id=task_id,
        attempt=attempt,
        status=status,
        completions=tuple(calls[completion_id] for completion_id in from_json(completion_ids, list[str])),
        messages=tuple(messages[:num_messages]),
        rewards=from_json(rewards, tuple[Reward, ...]),
        failure=None if failure is None else from_json(failure, Failure),
        duration_s=duration_s,
        acts=from_json(added[0], tuple[SandboxAct, ...]) if added else (),  # not in schema 1
        patch=from_json(added[1], str) if len(added) > 1 else "",  # not in schemas 1 to 4
    )


def task_of(task: str) -> Task:
    """The inverse of to_json(task)."""
    return from_json(task, Task)


# --- values -----------------------------------------------------------------------------------------------------------


def pack_ids(token_ids: Sequence[int]) -> bytes:
    """Token ids as little-endian int32. Raises ValueError on an id beyond 32 bits."""
    try:
        return struct.pack(f"<{len(token_ids)}i", *token_ids)
    except struct.error as error:
        raise ValueError(f"token ids are 32-bit integers, got {min(token_ids)}..{max(token_ids)}") from error


def unpack_ids(blob: bytes) -> tuple[int, ...]:
    """The inverse of pack_ids."""
    return struct.unpack(f"<{len(blob) // 4}i", blob)


def pack_floats(values: Sequence[float]) -> bytes:
    """Numbers as little-endian float64: bit for bit what Python computes with."""
    return struct.pack(f"<{len(values)}d", *values)


def unpack_floats(blob: bytes) -> tuple[float, ...]:
    """The inverse of pack_floats."""
    return struct.unpack(f"<{len(blob) // 8}d", blob)


def pack_routes(routes: RoutedExperts) -> bytes:
    """A small header, then the experts. Raises ValueError on more layers or experts a token than 16 bits count."""
    try:
        return _ROUTES_HEADER.pack(routes.first, routes.num_layers, routes.top_k) + routes.data
    except struct.error as error:
        shape = (routes.first, routes.num_layers, routes.top_k)
        raise ValueError(f"routes have a first place of 32 bits and 16 bits each of layers and experts a token, got {shape}") from error


def unpack_routes(blob: bytes) -> RoutedExperts:
    """The inverse of pack_routes."""
    first, num_layers, top_k = _ROUTES_HEADER.unpack_from(blob)
    return RoutedExperts(first, num_layers, top_k, blob[_ROUTES_HEADER.size :])


def to_json(value: Any) -> str:
    """JSON text of a dataclass."""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # a lone surrogate, such as a file name that is not UTF-8: JSON can escape it, msgspec does not
        return json.dumps(msgspec.to_builtins(value))


def from_json(text: str, kind: type[Value]) -> Value:
    """The inverse of to_json."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(text), kind)
