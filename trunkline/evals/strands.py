"""An episode's tree of messages cut into conversations, each call in exactly one of them. Owns the cut; knows no format.

                 ┌─► a1 ─► t ─► a2        strand 0: user a1 t a2     (the main walk)
system ─► user ──┴─► a1' ─► t ─► a2'      strand 1: (system user) a1' t a2'
       └► summary ─► a3                   strand 2: (system) summary a3       in parentheses: copied

Of several ways to go on, the main one is that of the earliest call that was itself continued, else of the earliest call: a request for a
title, a sample that was thrown away, or a retry whose first answer was lost do not lead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trunkline.types import Episode

_Rank = tuple[int, int]


@dataclass(frozen=True)
class Strand:
    """One conversation."""

    copied: tuple[int, ...]
    """Nodes that another strand has as its own, from a root on."""
    own: tuple[int, ...]
    """Nodes that follow them."""
    calls: dict[int, int] = field(default_factory=dict)
    """Which call sampled it, as an index of the episode's completions, by own node."""

    @property
    def first_call(self) -> int | None:
        """The earliest of its calls; None without any."""
        return min(self.calls.values(), default=None)


def strands_of(episode: Episode) -> list[Strand]:
    """All of an episode, the main walk first, then by their first call. Empty if it has no messages.

    Raises ValueError if its tree is none: a message before its parent, a reply that is not the model's or not behind its prompt.
    """
    _check(episode)
    calls: dict[int, list[int]] = {}
    for number, completion in enumerate(episode.completions):
        calls.setdefault(completion.reply_node, []).append(number)
    children: dict[int | None, list[int]] = {}
    for node, content in enumerate(episode.messages):
        children.setdefault(content.parent, []).append(node)
    ranks = _ranks(children, calls, len(episode.messages))
    strands: list[Strand] = []
    heads: list[tuple[tuple[int, ...], int]] = [((), root) for root in sorted(children.get(None, ()), key=ranks.__getitem__)]
    for copied, head in heads:  # it grows while branches are found
        own = [head]
        while following := sorted(children.get(own[-1], ()), key=ranks.__getitem__):
            heads += [((*copied, *own), branch) for branch in following[1:]]
            own.append(following[0])
        strands.append(Strand(copied, tuple(own), {node: calls[node][0] for node in own if node in calls}))
        for place, node in enumerate(own):
            strands += [Strand((*copied, *own[:place]), (node,), {node: number}) for number in calls.get(node, ())[1:]]
    return strands[:1] + sorted(strands[1:], key=_order)


def _check(episode: Episode) -> None:
    nodes = episode.messages
    for node, content in enumerate(nodes):
        if content.parent is not None and not 0 <= content.parent < node:
            raise ValueError(f"{episode.episode_id}: message {node} has the parent {content.parent}, which is not before it")
    for number, call in enumerate(episode.completions):
        is_reply = 0 <= call.reply_node < len(nodes) and nodes[call.reply_node].message.role == "assistant"
        if not is_reply or nodes[call.reply_node].parent != call.prompt_node:
            raise ValueError(
                f"{episode.episode_id}: call {number} has the prompt message {call.prompt_node} and the reply {call.reply_node}; "
                "a reply is the assistant's message right behind the prompt"
            )


def _ranks(children: Mapping[int | None, Sequence[int]], calls: Mapping[int, Sequence[int]], num_nodes: int) -> list[_Rank]:
    """Of each node, the best of its subtree: (0, a call that was continued), (1, a call), (2, a message); smaller is better."""
    ranks: list[_Rank] = [(2, node) for node in range(num_nodes)]
    for node in reversed(range(num_nodes)):
        below = min((ranks[child] for child in children.get(node, ())), default=(2, node))
        number = min(calls.get(node, ()), default=None)
        own = (2, node) if number is None else (0 if below[0] < 2 else 1, number)
        ranks[node] = min(own, below)
    return ranks


def _order(strand: Strand) -> _Rank:
    return (1, strand.own[0]) if strand.first_call is None else (0, strand.first_call)
