"""Training samples out of finished groups: one per trainable completion. Owns the credit; no torch, no scheduling."""

from __future__ import annotations

from collections.abc import Sequence

from trunkline.trainer.advantages import advantages
from trunkline.types import Completion, Group, PolicyVersion, TrainSample


def samples_from_groups(groups: Sequence[Group], *, baseline: str, version: PolicyVersion | None = None) -> tuple[TrainSample, ...]:
    """One sample per trainable completion of each valid episode of the groups that carry a gradient.

    An episode's reward less its group's baseline is the advantage of every token it sampled, in all its completions.
    Failed episodes count neither in the baseline nor in the samples; dropped and empty completions give no sample. Completions
    sampled wholly under `version`, that of the weights the step starts from, are marked current. Raises ConfigError on an unknown
    baseline.
    """
    samples: list[TrainSample] = []
    for group in groups:
        if not group.has_gradient:
            continue
        valid = [episode for episode in group.episodes if episode.reward is not None]
        credit = advantages(group.valid_rewards, baseline=baseline).tolist()
        for episode, advantage in zip(valid, credit, strict=True):
            samples += [_sample(completion, advantage, version) for completion in episode.completions if is_trainable(completion)]
    return tuple(samples)


def is_trainable(completion: Completion) -> bool:
    """True if it holds sampled tokens that nothing forbids to train."""
    return completion.drop_reason is None and completion.num_sampled > 0


def _sample(completion: Completion, advantage: float, version: PolicyVersion | None) -> TrainSample:
    prompt, response = len(completion.prompt_ids), completion.num_sampled
    return TrainSample(
        token_ids=completion.prompt_ids + completion.generation.token_ids,
        mask=(False,) * prompt + (True,) * response,
        logprobs=(0.0,) * prompt + completion.generation.logprobs,
        advantages=(0.0,) * prompt + (advantage,) * response,
        temperature=completion.sampling.temperature,
        is_current=all(span.version == version for span in completion.generation.version_spans),
    )
