"""Demonstrations as weighted tokens: from the oracle, and from recorded episodes."""

from __future__ import annotations

import random

import pytest

from trunkline.episodes.demonstrations import demonstrations_from_episodes, render_demonstrations
from trunkline.errors import ConfigError
from trunkline.gateway.markup import TINY, MarkupRenderer
from trunkline.models.tokenizer import Tokenizer, build_tiny_tokenizer
from trunkline.protocols import Attempt
from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset
from trunkline.tasks.lookup.vocabulary import CHARACTERS, PIECES
from trunkline.types import Completion, Episode, Generation, PolicyVersion, SamplingParams, Task, VersionSpan


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tiny_tokenizer(special_tokens=TINY.special_tokens, pieces=PIECES, characters=CHARACTERS)


@pytest.fixture(scope="module")
def taskset() -> LookupTaskset:
    return LookupTaskset(LookupConfig())


class Silent:
    """A taskset without demonstrations."""

    name = "silent"

    def task(self, split: str, index: int) -> Task:
        return Task(f"{split}/{index}", self.name, "only", (), {})

    def open(self, task: Task) -> Attempt:
        raise AssertionError("never opened")


def test_actions_weigh_1_and_all_else_but_the_first_token_other_weight(tokenizer: Tokenizer, taskset: LookupTaskset) -> None:
    task = next(task for task in (taskset.task("heldout", index) for index in range(100)) if task.kind == "two_hop.capital_population")
    renderer = MarkupRenderer(tokenizer, TINY)
    (demonstration,) = render_demonstrations(renderer, taskset, [task], random.Random(0), decision_noise=0.0, other_weight=0.25)
    (_, country), (_, capital) = task.payload["needed"]
    weighted = list(zip(demonstration.token_ids, demonstration.weights, strict=True))
    actions = tokenizer.decode([token for token, weight in weighted if weight == 1.0])
    calls = f"<|call|>capital<|arg|>{country}<|end|><|call|>population<|arg|>{capital}<|end|>"
    assert actions == f"{calls}{task.payload['answer']}<|end|>"
    assert demonstration.weights[0] == 0.0
    assert {weight for _, weight in weighted[1:]} == {0.25, 1.0}


def test_demonstrations_of_the_same_seed_are_equal(tokenizer: Tokenizer, taskset: LookupTaskset) -> None:
    renderer = MarkupRenderer(tokenizer, TINY)
    tasks = [taskset.task("train", index) for index in range(50)]
    first, second = (render_demonstrations(renderer, taskset, tasks, random.Random(7), decision_noise=0.4) for _ in range(2))
    assert first == second and len(first) == 50


def test_taskset_without_demonstrations_is_a_config_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="'silent' has no demonstrations"):
        render_demonstrations(MarkupRenderer(tokenizer, TINY), Silent(), [], random.Random(0), decision_noise=0.0)


def completion(name: str, prompt: tuple[int, ...], sampled: tuple[int, ...], parent: str | None = None) -> Completion:
    version_spans = (VersionSpan(0, len(sampled), PolicyVersion(1, 0)),)
    generation = Generation(sampled, (-0.5,) * len(sampled), "stop", version_spans)
    return Completion(name, "s", prompt, generation, SamplingParams(8), 0, 1, parent_id=parent, num_shared=0)


def episode(*completions: Completion) -> Episode:
    return Episode("g0-a00", "g0", "train/0", 0, "finished", completions, ())


def test_successful_episode_is_imitated_at_all_tokens_sampled_on_its_last_walk() -> None:
    first = completion("c1", (1, 2, 3), (4, 5))
    second = completion("c2", (1, 2, 3, 4, 5, 6, 7), (8, 9), parent="c1")
    (demonstration,) = demonstrations_from_episodes([episode(first, second)])
    assert demonstration.token_ids == (1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert demonstration.weights == (0.0, 0.1, 0.1, 1.0, 1.0, 0.1, 0.1, 1.0, 1.0)


def test_completions_of_other_branches_are_not_imitated() -> None:
    abandoned = completion("c1", (1, 2), (3, 4))
    last = completion("c2", (1, 2, 5), (6,))
    (demonstration,) = demonstrations_from_episodes([episode(abandoned, last)], other_weight=0.0)
    assert demonstration.token_ids == (1, 2, 5, 6)
    assert demonstration.weights == (0.0, 0.0, 0.0, 1.0)


def test_episode_without_a_completion_gives_no_demonstration() -> None:
    assert demonstrations_from_episodes([episode()]) == []
