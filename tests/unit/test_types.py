"""The vocabulary checks itself: versions, aligned streams, rewards of episodes and groups."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from trunkline import types
from trunkline.types import (
    Completion,
    Demonstration,
    Episode,
    EpisodeStatus,
    Generation,
    Group,
    Message,
    PolicyVersion,
    Reward,
    SamplingParams,
    Task,
    TrainSample,
    VersionSpan,
)

versions = st.builds(PolicyVersion, st.integers(1, 99), st.integers(0, 10**9))


def episode(attempt: int, reward: float, *, status: EpisodeStatus = "finished") -> Episode:
    rewards = () if status == "failed" else (Reward("outcome", reward, "as given"),)
    return Episode(f"g-a{attempt}", "g", "t", attempt, status, completions=(), messages=(), rewards=rewards)


def group(*episodes: Episode) -> Group:
    return Group("g", 0, Task("t", "one", "only", (Message("user", "?"),), {}), episodes)


@given(versions)
def test_a_version_survives_being_written(version: PolicyVersion) -> None:
    assert PolicyVersion.parse(str(version)) == version


@pytest.mark.parametrize("text", ["", "1", "1.", ".2", "1.x", "-1.2", "1.2.3", "1,2"])
def test_what_is_no_version_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"INCARNATION\.STEP") as caught:
        PolicyVersion.parse(text)
    assert repr(text) in str(caught.value)


@given(versions, versions)
def test_age_is_the_difference_in_steps_and_never_negative(sampled: PolicyVersion, training: PolicyVersion) -> None:
    age = sampled.age_at(training)
    assert age >= 0
    assert age == training.step - sampled.step or training.step < sampled.step


def test_versions_order_by_incarnation_then_step() -> None:
    assert PolicyVersion(1, 99) < PolicyVersion(2, 3) < PolicyVersion(2, 12)


def test_every_value_that_crosses_rooms_is_frozen() -> None:
    classes = [value for value in vars(types).values() if isinstance(value, type) and dataclasses.is_dataclass(value)]
    assert len(classes) > 15
    assert all(cls.__dataclass_params__.frozen for cls in classes)


def test_a_generation_has_one_logprob_a_token() -> None:
    span = VersionSpan(0, 2, PolicyVersion(1, 0))
    with pytest.raises(ValueError, match="one length"):
        Generation((5, 6), (-0.1,), "stop", (span,))


@pytest.mark.parametrize("short", ["mask", "logprobs", "advantages"])
def test_streams_of_a_sample_are_aligned(short: str) -> None:
    streams: dict[str, Any] = {"token_ids": (1, 2), "mask": (False, True), "logprobs": (0.0, -1.0), "advantages": (0.0, 1.0)}
    TrainSample(**streams)
    with pytest.raises(ValueError, match=short):
        TrainSample(**streams | {short: streams[short][:1]})


def test_the_first_token_cannot_be_trained() -> None:
    with pytest.raises(ValueError, match="no context"):
        TrainSample((1,), (True,), (0.0,), (1.0,))
    with pytest.raises(ValueError, match="no context"):
        Demonstration((1, 2), (0.5, 1.0))


@pytest.mark.parametrize(
    ("sampling", "is_policy"),
    [
        (SamplingParams(8), True),
        (SamplingParams(8, temperature=0.7), True),
        (SamplingParams(8, temperature=0), False),
        (SamplingParams(8, top_p=0.9), False),
    ],
)
def test_only_the_whole_softmax_is_the_policy_distribution(sampling: SamplingParams, is_policy: bool) -> None:
    assert sampling.is_policy_distribution is is_policy


def test_a_failed_episode_has_no_reward_rather_than_zero() -> None:
    assert episode(0, 0.0, status="failed").reward is None
    assert episode(0, 0.0).reward == 0.0
    assert episode(0, 0.5, status="deadline").reward == 0.5


def test_rewards_of_an_episode_add_up() -> None:
    both = dataclasses.replace(episode(0, 1.0), rewards=(Reward("outcome", 1.0, ""), Reward("speed", 0.25, "")))
    assert both.reward == 1.25


@pytest.mark.parametrize(
    ("episodes", "has_gradient"),
    [
        ((episode(0, 0.0), episode(1, 1.0)), True),
        ((episode(0, 1.0), episode(1, 1.0)), False),
        ((episode(0, 1.0), episode(1, 0.0, status="failed")), False),
        ((episode(0, 1.0), episode(1, 0.0, status="failed"), episode(2, 0.0, status="deadline")), True),
        ((), False),
    ],
)
def test_a_group_has_a_gradient_if_two_valid_rewards_differ(episodes: tuple[Episode, ...], has_gradient: bool) -> None:
    assert group(*episodes).has_gradient is has_gradient


def test_a_group_has_a_gradient_if_a_step_earned_something_by_itself() -> None:
    call = Completion("c", "s", (1,), Generation((2,), (-0.5,), "stop", ()), SamplingParams(8), 0, 1)
    lost_at = [
        dataclasses.replace(
            episode(place, 1.0), completions=(call, call), rewards=(Reward("outcome", 1.0, ""), Reward("process", -0.5, "", place))
        )
        for place in (0, 1)
    ]
    assert group(*lost_at).valid_rewards == (0.5, 0.5)
    assert group(*lost_at).earned_before == ((0, -0.5), (0, 0))
    assert group(*lost_at).has_gradient
    assert not group(lost_at[1], lost_at[1]).has_gradient, "no call comes after the last one"


def test_a_reward_before_the_first_completion_is_refused() -> None:
    with pytest.raises(ValueError, match="count from 0, got at=-1"):
        Reward("process", -0.5, "", -1)
