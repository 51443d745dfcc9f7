"""Episodes out as ATIF-v1.8 trajectories and in again, exactly. Owns what becomes what; the format is atif_schema.py's.

episode_to_atif   the main walk is the document's steps; every other context (a sub-agent's, one after compaction, a further sample) is an
                  embedded trajectory, with the steps it took over marked is_copied_context
atif_to_episode   the very episode, from what stands under `trunkline`; of other programs' documents what they say (atif_foreign.py)

`episode_to_atif(atif_to_episode(t), agent=t.agent) == t` for every document that Trunkline wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trunkline import __version__
from trunkline.errors import ConfigError
from trunkline.evals.atif_foreign import foreign_episode, left_out
from trunkline.evals.atif_record import (
    KEY,
    CallRecord,
    EpisodeRecord,
    NodeRecord,
    StrandRecord,
    message_of_result,
    message_of_step,
    message_step,
    packed,
    tool_result,
    unpacked,
    well_formed,
)
from trunkline.evals.atif_schema import (
    Agent,
    FinalMetrics,
    Metrics,
    Observation,
    ObservationResult,
    Step,
    SubagentRef,
    Trajectory,
    check_document,
)
from trunkline.evals.strands import Strand, strands_of
from trunkline.types import Completion, Episode, MessageNode

THIS_AGENT = Agent(name="trunkline", version=__version__)
"""Where nothing more is known of who acted."""

_NOTHING_SAID = "The attempt ended before anything was said."
_NOTES = (
    "{calls} calls in {contexts} contexts: these steps are the main one, the others are under subagent_trajectories whether a sub-agent's "
    "or not; extra.trunkline.lineage says how each came about. Sums are of a trajectory's own calls."
)

_REMEDY = f"export it again, or remove extra.{KEY} of the document to read it as another program's"


@dataclass(frozen=True)
class Imported:
    """What a document gave."""

    episode: Episode
    """The episode."""
    left_out: tuple[str, ...]
    """What the document says beyond it, in words; empty for a document as Trunkline wrote it."""


# --- out --------------------------------------------------------------------------------------------------------------


def episode_to_atif(episode: Episode, *, agent: Agent = THIS_AGENT) -> Trajectory:
    """The whole episode as one document.

    Args:
        episode: with messages as a tree in which each stands behind its parent.
        agent: who acted; an episode does not know.

    Raises:
        ValueError: the episode's tree is none, or a reply in it is not the assistant's message behind its prompt.
    """
    strands = strands_of(episode)
    name = well_formed(episode.episode_id)
    source = _Source.of(episode)
    branches = tuple(_embedded(source, strand, f"{name}/{number}", agent) for number, strand in enumerate(strands[1:], start=1))
    steps = _steps(source, strands[0]) if strands else (Step(step_id=1, source="system", message=_NOTHING_SAID),)
    if branches:
        steps = _with_references(steps, strands, branches, episode)
    trajectory = Trajectory(
        session_id=name,
        trajectory_id=name,
        agent=agent,
        steps=steps,
        notes=_NOTES.format(calls=len(episode.completions), contexts=len(strands)) if branches else None,
        final_metrics=_sums(steps),
        subagent_trajectories=branches or None,
        extra=packed(EpisodeRecord.of(episode)),
    )
    check_document(trajectory)
    return trajectory


@dataclass(frozen=True)
class _Source:
    """An episode with each message as a step, or as what a tool gave back: made once, copied into every strand that has it."""

    episode: Episode
    """The episode."""
    steps: Mapping[int, Step]
    """By node, of messages that are no tool's."""
    results: Mapping[int, ObservationResult]
    """By node, of tools' messages."""

    @classmethod
    def of(cls, episode: Episode) -> _Source:
        """A tool's message answers the calls of the last message before it that is no tool's."""
        steps: dict[int, Step] = {}
        results: dict[int, ObservationResult] = {}
        speakers: dict[int | None, Step | None] = {None: None}
        for node, (message, parent) in enumerate((one.message, one.parent) for one in episode.messages):
            speaker = speakers[parent]
            if message.role == "tool":
                calls = speaker.tool_calls if speaker else None
                results[node] = tool_result(node, message, [call.tool_call_id for call in calls or ()])
            else:
                speaker = steps[node] = message_step(node, message)
            speakers[node] = speaker
        return cls(episode, steps, results)


def _embedded(source: _Source, strand: Strand, trajectory_id: str, agent: Agent) -> Trajectory:
    steps = _steps(source, strand)
    first = strand.first_call
    extra = None if first is None else packed(StrandRecord(source.episode.completions[first].facts.lineage))
    return Trajectory(trajectory_id=trajectory_id, agent=agent, steps=steps, final_metrics=_sums(steps), extra=extra)


def _steps(source: _Source, strand: Strand) -> tuple[Step, ...]:
    """The strand's messages; what tools said stands with the step before it."""
    turns: list[tuple[Step, list[ObservationResult]]] = []
    for place, node in enumerate((*strand.copied, *strand.own)):
        if node in source.results:
            if not turns:  # the format has no place for a result that nothing came before
                turns.append((Step(step_id=1, source="system", message=""), []))
            turns[-1][1].append(source.results[node])
            continue
        step = _step(node, source, strand, is_copied=place < len(strand.copied))
        turns.append((step.model_copy(update={"step_id": len(turns) + 1}), []))
    return tuple(_observing(step, results) for step, results in turns)


def _step(node: int, source: _Source, strand: Strand, *, is_copied: bool) -> Step:
    """An assistant's turn that this strand did not sample (taken over, or put into its mouth) is context: nobody should train on it."""
    step = source.steps[node]
    number = strand.calls.get(node)
    if number is not None:
        return step.model_copy(update={"metrics": _metrics(number, source.episode.completions[number]), "llm_call_count": 1})
    is_context = is_copied or step.source == "agent"
    return step.model_copy(update={"is_copied_context": True}) if is_context else step


def _metrics(number: int, completion: Completion) -> Metrics:
    record = CallRecord.of(number, completion)
    return Metrics(
        prompt_tokens=len(completion.prompt_ids),
        completion_tokens=completion.num_sampled,
        prompt_token_ids=completion.prompt_ids,
        completion_token_ids=completion.generation.token_ids,
        logprobs=completion.generation.logprobs if record.logprobs is None else None,
        extra=packed(record),
    )


def _observing(step: Step, results: Sequence[ObservationResult]) -> Step:
    return step.model_copy(update={"observation": Observation(results=(*step.results, *results))}) if results else step


def _with_references(
    steps: tuple[Step, ...], strands: Sequence[Strand], branches: Sequence[Trajectory], episode: Episode
) -> tuple[Step, ...]:
    """Each branch is referred to by the step of the main walk whose call was the last before the branch's first; else by the first step."""
    references: dict[int, list[SubagentRef]] = {}
    places = {_node(step): place for place, step in enumerate(steps)}
    calls = [(number, places[node]) for node, number in strands[0].calls.items()]
    for strand, branch in zip(strands[1:], branches, strict=True):
        first = len(episode.completions) if strand.first_call is None else strand.first_call
        place = max((call for call in calls if call[0] < first), default=(0, 0))[1]
        references.setdefault(place, []).append(SubagentRef(trajectory_id=branch.trajectory_id, extra=branch.extra))
    return tuple(
        _observing(step, [ObservationResult(subagent_trajectory_ref=tuple(references[place]))] if place in references else [])
        for place, step in enumerate(steps)
    )


def _node(step: Step) -> int | None:
    record = unpacked(step.extra, NodeRecord, f"step {step.step_id}")
    return None if record is None else record.node


def _sums(steps: Sequence[Step]) -> FinalMetrics:
    metrics = [step.metrics for step in steps if step.metrics is not None]
    return FinalMetrics(
        total_prompt_tokens=sum(one.prompt_tokens or 0 for one in metrics),
        total_completion_tokens=sum(one.completion_tokens or 0 for one in metrics),
        total_steps=len(steps),
    )


# --- in ---------------------------------------------------------------------------------------------------------------


def atif_to_episode(trajectory: Trajectory) -> Episode:
    """The episode that a document tells of. Raises ConfigError as import_trajectory does."""
    return import_trajectory(trajectory).episode


def import_trajectory(trajectory: Trajectory) -> Imported:
    """The same, with what was left out. Raises ConfigError if a document of Trunkline's was changed so that its episode cannot be had."""
    name = trajectory.trajectory_id or "the document"
    record = unpacked(trajectory.extra, EpisodeRecord, name)
    if record is None:
        return Imported(foreign_episode(trajectory), left_out(trajectory))
    nodes: dict[int, MessageNode] = {}
    completions: dict[int, Completion] = {}
    for strand in trajectory.walk():
        for told in _told(strand):
            if nodes.setdefault(told.node, told.content) != told.content:
                raise ConfigError(f"{told.place} tells message {told.node} otherwise than an earlier step does; {_REMEDY}")
            if told.call is not None:
                completions.setdefault(told.call[0], told.call[1])
    _check_complete(name, "message", nodes, record.num_messages)
    _check_complete(name, "call", completions, record.num_calls)
    episode = record.episode(tuple(completions[n] for n in sorted(completions)), tuple(nodes[n] for n in sorted(nodes)))
    is_exact = episode_to_atif(episode, agent=trajectory.agent) == trajectory
    return Imported(episode, () if is_exact else ("what was changed or added since Trunkline wrote the document",))


@dataclass(frozen=True)
class _Told:
    """A message that a step tells."""

    place: str
    """Where, for errors."""
    node: int
    """Its index."""
    content: MessageNode
    """The message behind the one before it."""
    call: tuple[int, Completion] | None
    """The call that sampled it, if this step is the call's, with its index."""


def _told(trajectory: Trajectory) -> Iterator[_Told]:
    parent: int | None = None
    for step in trajectory.steps:
        place = f"step {step.step_id} of {trajectory.trajectory_id}"
        record = unpacked(step.extra, NodeRecord, place)
        if record is not None:
            content = MessageNode(record.message or message_of_step(step), parent)
            yield _Told(place, record.node, content, _call(step, place, parent, record.node))
            parent = record.node
        elif step.metrics is not None:
            raise ConfigError(f"{place} has a call but no extra.{KEY}, which says what message it is; {_REMEDY}")
        for result in step.results:
            record = unpacked(result.extra, NodeRecord, place)
            if record is not None:
                yield _Told(place, record.node, MessageNode(record.message or message_of_result(result), parent), None)
                parent = record.node


def _call(step: Step, place: str, prompt_node: int | None, reply_node: int) -> tuple[int, Completion] | None:
    if step.metrics is None:
        return None
    record = unpacked(step.metrics.extra, CallRecord, f"metrics of {place}")
    if record is None or prompt_node is None:
        raise ConfigError(f"{place} has metrics without extra.{KEY}, or no step before it; {_REMEDY}")
    try:
        return record.index, record.completion(step.metrics, prompt_node=prompt_node, reply_node=reply_node)
    except ValueError as error:
        raise ConfigError(f"metrics of {place}: {error}; {_REMEDY}") from None


def _check_complete(name: str, what: str, found: Mapping[int, object], num_wanted: int) -> None:
    wanted = set(range(num_wanted))
    for word, numbers in (("is missing", wanted - set(found)), ("is too many", set(found) - wanted)):
        if numbers:
            raise ConfigError(f"{name}: {what} {min(numbers)} {word}, of {num_wanted} that the episode has; {_REMEDY}")
