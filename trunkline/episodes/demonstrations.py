"""Conversations as weighted tokens to imitate, from an oracle or from own successes. Owns no chat format and no oracle."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trunkline.episodes.managed import managed_branches
from trunkline.errors import ConfigError
from trunkline.gateway.base import Renderer
from trunkline.gateway.conversation import render_conversation
from trunkline.protocols import Taskset
from trunkline.tasks.base import DemonstratingTaskset
from trunkline.types import Completion, Demonstration, Episode, Task, ToolSpec

if TYPE_CHECKING:
    from trunkline.agents.context_management import ContextManagement


@dataclass(frozen=True)
class Managed:
    """That some demonstrations are shown as the agent's context management would."""

    method: ContextManagement
    """The agent's."""
    share: float
    """Of the demonstrations."""


def render_demonstrations(
    renderer: Renderer,
    taskset: Taskset,
    tasks: Sequence[Task],
    rng: random.Random,
    *,
    decision_noise: float,
    other_weight: float = 0.1,
    managed: Managed | None = None,
    agent_tools: Sequence[ToolSpec] = (),
) -> list[Demonstration]:
    """One demonstration a task, exactly the tokens of a live conversation.

    Under context management a conversation has several contexts; one of them is drawn. Weight 1 on tokens that the model would
    have sampled in it, `other_weight` on all others but the first, which has none. `agent_tools` are offered beside the task's.
    Raises ConfigError for a taskset that cannot demonstrate.
    """
    if not isinstance(taskset, DemonstratingTaskset):
        raise ConfigError(f"taskset {taskset.name!r} has no demonstrations; set cold_start.steps = 0")
    demonstrations = []
    for task in tasks:
        messages = taskset.demonstrate(task, rng, decision_noise=decision_noise)
        tools = (*taskset.open(task).tools.specs, *agent_tools)
        if managed is not None and rng.random() < managed.share:
            rendered = rng.choice(managed_branches(renderer, managed.method, messages, tools))
        else:
            rendered = render_conversation(renderer, messages, tools)
        demonstrations.append(_weighted(rendered.token_ids, rendered.is_action, other_weight))
    return demonstrations


def demonstrations_from_episodes(episodes: Iterable[Episode], *, other_weight: float = 0.1) -> list[Demonstration]:
    """Each episode's last completion with its whole context; choosing the successful ones is the caller's.

    Weight 1 on the tokens that were sampled in this completion and in those it extends, `other_weight` on all others but
    the first. An episode without a completion shows nothing and gives none.
    """
    return [_walk(episode.completions, other_weight) for episode in episodes if episode.completions]


def _walk(completions: Sequence[Completion], other_weight: float) -> Demonstration:
    last = completions[-1]
    token_ids = last.prompt_ids + last.generation.token_ids
    is_action = [False] * len(token_ids)
    for completion in _ancestry(completions):
        start = len(completion.prompt_ids)
        end = start + completion.num_sampled
        assert token_ids[:end] == completion.prompt_ids + completion.generation.token_ids, "a completion extends its parent exactly"
        is_action[start:end] = [True] * (end - start)
    return _weighted(token_ids, is_action, other_weight)


def _ancestry(completions: Sequence[Completion]) -> Iterator[Completion]:
    """The last completion, its parent, and so on to a root."""
    by_id = {completion.completion_id: completion for completion in completions}
    current: Completion | None = completions[-1]
    while current is not None:
        yield current
        current = by_id[current.parent_id] if current.parent_id is not None else None


def _weighted(token_ids: tuple[int, ...], is_action: Sequence[bool], other_weight: float) -> Demonstration:
    weights = [1.0 if action else other_weight for action in is_action]
    return Demonstration(token_ids, (0.0, *weights[1:]))
