"""What an attempt earns in all, and that success is read from the verdict alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trunkline.episodes.composite_reward import component_rewards, pace_of, verdict_of
from trunkline.episodes.config import RewardsConfig
from trunkline.evals.heldout import succeeded
from trunkline.tasks.lookup.vocabulary import BAD_ARGUMENTS
from trunkline.types import (
    Completion,
    Episode,
    Generation,
    Message,
    MessageNode,
    PolicyVersion,
    Reward,
    SamplingParams,
    ToolCall,
    ToolSpec,
    VersionSpan,
)

WON, LOST = (Reward("outcome", 1.0, "right"),), (Reward("outcome", 0.0, "wrong"),)
SPECS = (ToolSpec("population", "", {}, latency_s=1.5),)
CALL = (ToolCall("c0", "population", '{"name": "Lima"}'),)
MESSAGES = (
    MessageNode(Message("user", "How many people live in Lima?"), None),
    MessageNode(Message("assistant", "", CALL), 0),
    MessageNode(Message("tool", BAD_ARGUMENTS, tool_call_id="c0"), 1),
    MessageNode(Message("assistant", "7.7e6"), 2),
)


def completion(place: int, *, parent_id: str | None = None) -> Completion:
    generation = Generation((1,) * 25, (-0.5,) * 25, "stop", (VersionSpan(0, 25, PolicyVersion(1, 0)),))
    return Completion(f"k{place}", "s", (1,), generation, SamplingParams(99), 2 * place, 2 * place + 1, parent_id=parent_id)


COMPLETIONS = (completion(0), completion(1, parent_id="k0"))


def components(config: RewardsConfig, verdict: tuple[Reward, ...]) -> list[tuple[str, float, int | None]]:
    return [(reward.name, reward.value, reward.at) for reward in component_rewards(config, verdict, COMPLETIONS, MESSAGES, SPECS)]


def test_by_default_an_attempt_earns_its_verdict_alone() -> None:
    assert RewardsConfig().is_off
    assert components(RewardsConfig(), WON) == []


def test_a_success_earns_its_pace_weighted() -> None:
    # 25 tokens of 0.02 s, the tool's 1.5 s, 25 tokens: 2.5 s at a base of 5 s.
    assert components(RewardsConfig(speed=2.0, base_s=5.0), WON) == [("speed", pytest.approx(2.0 / 1.25), None)]


def test_a_failure_earns_nothing_for_speed() -> None:
    assert components(RewardsConfig(speed=2.0), LOST) == []


def test_faults_are_weighed_whatever_the_verdict() -> None:
    for verdict in (WON, LOST):
        assert components(RewardsConfig(process=0.1), verdict) == [("process.format", -0.1, 0)]


def test_evidence_tells_time_base_pace_and_weight() -> None:
    (reward,) = component_rewards(RewardsConfig(speed=2.0, base_s=5.0), WON, COMPLETIONS, MESSAGES, SPECS)
    assert reward.evidence == "2.500 s on the virtual clock, base 5 s: 0.800 x 2"


def test_pace_falls_from_1_through_one_half_at_the_base() -> None:
    paces = [pace_of(x) for x in (0.0, 0.5, 1.0, 2.0, 100.0)]
    assert paces[0] == 1.0 and paces[2] == 0.5 and paces[-1] > 0
    assert paces == sorted(paces, reverse=True) and len(set(paces)) == len(paces)


@pytest.mark.parametrize(("verdict", "is_success"), [(WON, True), (LOST, False)])
def test_success_is_read_from_the_verdict_alone(verdict: tuple[Reward, ...], is_success: bool) -> None:
    episode = Episode("e", "g", "t", 0, "finished", COMPLETIONS, MESSAGES, verdict)
    punished = replace(episode, rewards=(*verdict, Reward("process.format", -0.9, "", 0)))
    hurried = replace(episode, rewards=(*verdict, Reward("speed", 1.9, "")))
    assert succeeded(episode) is succeeded(punished) is succeeded(hurried) is is_success
    assert verdict_of(punished) == verdict_of(hurried) == verdict[0].value
    assert not succeeded(replace(episode, status="failed", rewards=()))
