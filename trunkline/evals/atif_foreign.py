"""Other programs' ATIF trajectories as episodes, as far as they go. Owns what becomes of what, and what is left out.

message     every step, and every result of an observation (a tool's message); embedded trajectories begin at roots of their own, equal
            beginnings are stored once
call        an agent step with prompt_token_ids, completion_token_ids and a finite log-probability of each, that is not copied and stands
            for one call. Its distribution and its policy are not known, so it is never trained: DROP_REASON says so, no policy version
            is claimed, and its end counts as a stop. All other agent steps are messages only
episode     status failed, because there is no verdict: it has no reward, which is not a reward of 0
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from trunkline.evals.atif_record import message_of_result, message_of_step
from trunkline.evals.atif_schema import Metrics, Step, Trajectory
from trunkline.types import CallFacts, Completion, Episode, Failure, Generation, Lineage, Message, MessageNode, SamplingParams

DROP_REASON = "imported"
"""Of every call that another program recorded."""

WIRE = "atif"
"""What it came by."""

_NO_VERDICT = Failure("verifier", "NoVerdict", "read from an ATIF trajectory, which holds no verdict")


def foreign_episode(trajectory: Trajectory) -> Episode:
    """All that the document says, as messages and calls."""
    tree = _Tree()
    for strand in trajectory.walk():
        tree.add(strand)
    name = trajectory.trajectory_id or trajectory.session_id or "imported"
    return Episode(
        episode_id=name,
        group_id=name,
        task_id="",
        attempt=0,
        status="failed",
        completions=tuple(tree.completions),
        messages=tuple(tree.nodes),
        failure=_NO_VERDICT,
    )


def left_out(trajectory: Trajectory) -> tuple[str, ...]:
    """What the document says and the episode does not, in words with counts."""
    counts: Counter[str] = Counter()
    for strand in trajectory.walk():
        counts.update(_left_out_of(strand))
    return tuple(f"{what} ({number})" if number > 1 else what for what, number in counts.items())


class _Tree:
    """Messages, each once, and the calls among them."""

    def __init__(self) -> None:
        self.nodes: list[MessageNode] = []
        self.completions: list[Completion] = []
        self._known: dict[tuple[int | None, Message], int] = {}

    def add(self, trajectory: Trajectory) -> None:
        """Enters one trajectory, from a root on."""
        parent: int | None = None
        last: Completion | None = None
        for step in trajectory.steps:
            prompt, parent = parent, self._node(parent, message_of_step(step))
            metrics = _recorded(step)
            if metrics is not None and prompt is not None:
                last = self._call(trajectory, step, metrics, (prompt, parent), last)
            for result in step.results:
                if result.content is not None or not result.subagent_trajectory_ref:
                    parent = self._node(parent, message_of_result(result))

    def _node(self, parent: int | None, message: Message) -> int:
        found = self._known.get((parent, message))
        if found is None:
            found = self._known[parent, message] = len(self.nodes)
            self.nodes.append(MessageNode(message, parent))
        return found

    def _call(self, trajectory: Trajectory, step: Step, metrics: Metrics, nodes: tuple[int, int], last: Completion | None) -> Completion:
        prompt_ids, token_ids = metrics.prompt_token_ids or (), metrics.completion_token_ids or ()
        told = () if last is None else last.prompt_ids + last.generation.token_ids
        is_extension = last is not None and prompt_ids[: len(told)] == told
        lineage: Lineage = "extension" if last is not None else ("fresh" if self.completions else "first")
        session = trajectory.session_id or trajectory.trajectory_id or "imported"
        completion = Completion(
            completion_id=f"{trajectory.trajectory_id or session}:{step.step_id}",
            session_id=session,
            prompt_ids=prompt_ids,
            generation=Generation(token_ids, metrics.logprobs or (), "stop", ()),
            sampling=SamplingParams(max(1, len(token_ids))),
            prompt_node=nodes[0],
            reply_node=nodes[1],
            parent_id=last.completion_id if last is not None and is_extension else None,
            num_shared=len(told) if is_extension else 0,
            drop_reason=DROP_REASON,
            facts=CallFacts(wire=WIRE, lineage=lineage),
        )
        self.completions.append(completion)
        return completion


def _recorded(step: Step) -> Metrics | None:
    """The metrics of a step that is one recorded call; None if it is not, or not wholly recorded."""
    metrics = step.metrics
    if metrics is None or step.is_copied_context or step.llm_call_count not in (None, 1):
        return None
    if not metrics.prompt_token_ids or not metrics.completion_token_ids or metrics.logprobs is None:
        return None
    is_whole = len(metrics.logprobs) == len(metrics.completion_token_ids) and all(map(math.isfinite, metrics.logprobs))
    return metrics if is_whole else None


def _left_out_of(trajectory: Trajectory) -> Iterator[str]:
    yield "agent's description"
    for what, value in (
        ("notes", trajectory.notes),
        ("final_metrics", trajectory.final_metrics),
        ("extra of a trajectory", trajectory.extra),
        ("continuation in another file", trajectory.continued_trajectory_ref),
    ):
        if value is not None:
            yield what
    for place, step in enumerate(trajectory.steps):
        yield from _left_out_of_step(step, has_context=place > 0)


def _left_out_of_step(step: Step, *, has_context: bool) -> Iterator[str]:
    for name in ("timestamp", "model_name", "reasoning_effort"):
        if getattr(step, name) is not None:
            yield f"{name} of a step"
    if step.extra is not None or any(call.extra is not None for call in step.tool_calls or ()):
        yield "extra of a step"
    metrics = step.metrics
    if metrics is not None:
        is_call = _recorded(step) is not None and has_context
        if not is_call and metrics.completion_token_ids is not None:
            yield "token ids of a step that is not one call recorded whole"
        if not is_call and metrics.prompt_tokens is not None:
            yield "token counts of a step without token ids"
        if any(value is not None for value in (metrics.cached_tokens, metrics.cost_usd, metrics.extra)):
            yield "cache, cost or extra of a step's metrics"
    contents = [step.message, *(result.content for result in step.results)]
    parts = [part for content in contents if isinstance(content, tuple) for part in content]
    yield from (f"{part.type} of a message" for part in parts if part.type != "text")
    for result in step.results:
        if result.extra is not None:
            yield "extra of a result"
        for ref in result.subagent_trajectory_ref or ():
            yield "sub-agent in another file" if ref.trajectory_id is None else "which call started an embedded trajectory"
