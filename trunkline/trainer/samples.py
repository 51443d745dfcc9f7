"""Training samples out of finished groups: one per trainable completion. Owns credit and recorded routes; no torch, no scheduling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trunkline.trainer.advantages import advantages
from trunkline.types import Completion, Episode, Group, PolicyVersion, RoutedExperts, TrainSample


def samples_from_groups(groups: Sequence[Group], *, baseline: str, version: PolicyVersion | None = None) -> tuple[TrainSample, ...]:
    """One sample per trainable completion of each valid episode of the groups that carry a gradient.

    The advantage of every token of a completion is what its episode earned from this completion on, less its group's baseline.
    Failed episodes count neither in the baseline nor in the samples; dropped and empty completions give no sample. Completions
    sampled wholly under `version`, that of the weights the step starts from, are marked current; those that inherit recorded
    routes only if it sampled these, too. Raises ConfigError on an unknown baseline.
    """
    return tuple(
        _sample(completion, advantage, records.of(completion), is_current=records.are_current(completion, version))
        for group in groups
        if group.has_gradient
        for episode, credit in credited(group, baseline=baseline)
        for records in [_RouteRecords({one.completion_id: one for one in episode.completions})]
        for completion, advantage in zip(episode.completions, credit, strict=True)
        if is_trainable(completion)
    )


def credited(group: Group, *, baseline: str) -> list[tuple[Episode, tuple[float, ...]]]:
    """Each valid episode of a group with the advantages of its completions, in order of commit. Raises as `advantages` does.

    Sub-agents that worked side by side have no other order either: what one earns counts for all that was committed before it.
    """
    valid = [episode for episode in group.episodes if episode.reward is not None]
    credit = advantages(group.valid_rewards, group.earned_before, baseline=baseline)
    return [(episode, tuple(advantage_T.tolist())) for episode, advantage_T in zip(valid, credit, strict=True)]


def is_trainable(completion: Completion) -> bool:
    """True if it holds sampled tokens that nothing forbids to train."""
    return completion.drop_reason is None and completion.num_sampled > 0


@dataclass
class _RouteRecords:
    """The recorded routes of one episode's calls. A token's route is that of the call that sampled it, also in a prompt."""

    calls: Mapping[str, Completion]
    """All of the episode, also those that are not trained, by id."""
    _clipped: dict[tuple[str, int], RoutedExperts] = field(default_factory=dict)

    def of(self, completion: Completion) -> tuple[RoutedExperts, ...]:
        """Along its ancestors, the earliest first, each as far as its tokens are shared; calls that share all hold one object."""
        found: list[RoutedExperts] = []
        call, end = completion, len(completion.prompt_ids) + completion.num_sampled
        while True:
            record = self._until(call, end)
            if record is not None and record.num_tokens:
                found.append(record)
            end = min(end, call.num_shared)
            parent = self.calls.get(call.parent_id or "")
            if end == 0 or parent is None:
                return tuple(reversed(found))
            call = parent

    def are_current(self, completion: Completion, version: PolicyVersion | None) -> bool:
        """Whether `version` sampled all of a call, and also all that it inherits a route from: another's router may differ."""
        call: Completion | None = completion
        while call is not None:
            if any(span.version != version for span in call.generation.version_spans):
                return False
            parent = self.calls.get(call.parent_id or "") if call.num_shared else None
            call = None if parent is None or parent.generation.routes is None else parent
        return True

    def _until(self, call: Completion, end: int) -> RoutedExperts | None:
        record = call.generation.routes
        if record is None or record.first + record.num_tokens <= end:
            return record
        key = (call.completion_id, end)
        if key not in self._clipped:
            self._clipped[key] = record.rows(record.first, end)
        return self._clipped[key]


def _sample(completion: Completion, advantage: float, routes: tuple[RoutedExperts, ...], *, is_current: bool) -> TrainSample:
    prompt, response = len(completion.prompt_ids), completion.num_sampled
    return TrainSample(
        token_ids=completion.prompt_ids + completion.generation.token_ids,
        mask=(False,) * prompt + (True,) * response,
        logprobs=(0.0,) * prompt + completion.generation.logprobs,
        advantages=(0.0,) * prompt + (advantage,) * response,
        temperature=completion.sampling.temperature,
        is_current=is_current,
        routes=routes,
    )
