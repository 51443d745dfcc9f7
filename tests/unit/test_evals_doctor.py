"""The doctor's checks as functions of numbers, and how it puts their findings in order. Real runs: tests/integration/test_doctor.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.episodes.rebuild import Rebuilt
from trunkline.evals import doctor_rollouts as rollouts
from trunkline.evals import doctor_training as training
from trunkline.evals.doctor import diagnose_record
from trunkline.evals.finding import Limits, percent
from trunkline.evals.run_record import EpisodeCounts, RunRecord
from trunkline.types import (
    Completion,
    Episode,
    EpisodeStatus,
    Failure,
    FinishReason,
    Generation,
    Group,
    Message,
    MessageNode,
    PolicyVersion,
    Reward,
    SamplingParams,
    Task,
    ToolCall,
    VersionSpan,
)

ROOT = Path(__file__).parents[2]


def call(name: str, *, parent: str | None = None, finish: FinishReason = "stop", drop: str | None = None) -> Completion:
    generation = Generation((5, 6), (-0.5, -1.5), finish, (VersionSpan(0, 2, PolicyVersion(1, 0)),))
    return Completion(name, "s", (1, 2), generation, SamplingParams(8), 0, 1, parent, 0, drop)


def episode(
    reward: float | None, *calls: Completion, status: EpisodeStatus = "finished", failure: Failure | None = None, tool: bool = False
) -> Episode:
    tool_calls = (ToolCall("call_0", "area", "{}"),) if tool else ()
    messages = (MessageNode(Message("user", "?"), None), MessageNode(Message("assistant", "", tool_calls), 0))
    rewards = () if reward is None else (Reward("outcome", reward, ""),)
    return Episode("e", "g", "t", 0, status, calls, messages, rewards, failure)


def group(*episodes: Episode) -> Group:
    return Group("g", 0, Task("t", "lookup", "k", (), {}), episodes)


def with_counts(counts: EpisodeCounts, *steps: dict[str, float]) -> RunRecord:
    return RunRecord({}, steps, {}, counts, is_finished=False)


def test_groups_are_counted_by_why_they_carry_no_gradient() -> None:
    lost = episode(None, status="failed", failure=Failure("agent", "ConnectionError", "gone"))
    counts = EpisodeCounts.of(
        [
            group(episode(0.0), episode(0.0)),
            group(episode(1.0), episode(1.0), lost),
            group(episode(0.5), episode(0.5)),
            group(episode(1.0), lost),
            group(episode(0.0), episode(1.0)),
        ]
    )
    assert (counts.num_groups, counts.num_all_zero, counts.num_all_one, counts.num_all_other, counts.num_too_few) == (5, 1, 1, 1, 1)
    assert counts.failures == {"agent/ConnectionError": 2} and counts.num_episodes == 11


def test_calls_are_counted_by_how_they_begin_and_end() -> None:
    calls = (call("a"), call("b", parent="a", finish="length"), call("c", drop="aborted"))
    counts = EpisodeCounts.of([group(episode(1.0, *calls, tool=True), episode(0.0))])
    assert (counts.num_calls, counts.num_length_cuts, counts.num_followers, counts.num_branches) == (3, 1, 2, 1)
    assert counts.num_tool_users == 1 and counts.drops == {"aborted": 2}
    assert counts.entropy == pytest.approx(1.0)


def test_a_zero_without_any_finished_call_is_told_from_one_that_the_policy_earned() -> None:
    aborted = call("a", finish="abort")
    late = Failure("agent", "DeadlineExceeded", "late")
    counts = EpisodeCounts.of(
        [group(episode(0.0, call("a")), episode(0.0, aborted), episode(0.0), episode(0.0, status="deadline", failure=late))]
    )
    assert counts.num_unpaid == 4 and counts.num_unpaid_silent == 2
    assert counts.cuts == {"DeadlineExceeded": 1} and counts.num_cut_unpaid == 1


@pytest.mark.parametrize(("value", "verdict"), [(0.05, "ok"), (0.06, "warning"), (0.31, "fault"), (float("nan"), "fault")])
def test_a_number_is_graded_by_its_limits(value: float, verdict: str) -> None:
    assert Limits(0.05, 0.3).grade(value) == verdict


def test_small_shares_are_not_shown_as_none() -> None:
    assert [percent(share) for share in (0.0, 0.004, 0.05, 0.62, 1.0)] == ["0%", "0.4%", "5%", "62%", "100%"]


def test_an_attempt_that_ends_on_a_tool_call_unpaid_ran_out_of_turns() -> None:
    counts = EpisodeCounts.of([group(episode(0.0, call("a"), tool=True), episode(1.0, call("b"), tool=True), episode(0.0, call("c")))])
    assert counts.cuts == {"OutOfTurns": 1} and counts.num_cut_unpaid == 1


def test_while_no_group_ended_attempts_of_evaluations_are_counted() -> None:
    lost = episode(None, status="failed", failure=Failure("agent", "ConnectionError", "gone"))
    counts = EpisodeCounts.of((), lone=[lost, lost])
    assert counts.num_groups == 0 and counts.num_episodes == 2 and counts.failures == {"agent/ConnectionError": 2}
    assert diagnose_record(with_counts(counts)).findings[0].check == "failed attempts"


def test_success_that_was_there_once_and_is_gone_is_named_before_equal_groups() -> None:
    counts = EpisodeCounts(num_groups=64, num_all_zero=64, num_episodes=512, num_judged=512, num_unpaid=512, total_reward=0.0)
    steps = [{"step": step, "reward": reward} for step, reward in enumerate((0.88, 0.8, 0.5, 0.1), start=1)]
    assert diagnose_record(with_counts(counts, *steps)).findings[0].check == "lost success"


def test_a_cause_is_named_before_what_it_causes() -> None:
    counts = EpisodeCounts(
        num_groups=64, num_all_zero=64, num_episodes=512, num_unpaid=512, cuts={"DeadlineExceeded": 512}, num_cut_unpaid=512
    )
    diagnosis = diagnose_record(with_counts(counts))
    assert [found.check for found in diagnosis.findings if found.verdict == "fault"] == ["deadlines", "all-equal groups"]
    assert "agent.deadline_s" in diagnosis.most_likely_cause


def test_a_constant_reward_points_at_the_verifier() -> None:
    diagnosis = diagnose_record(with_counts(EpisodeCounts(num_groups=64, num_all_other=64)))
    assert "verifier" in diagnosis.most_likely_cause


def test_tasks_that_are_solved_already_are_said_to_be_too_easy() -> None:
    diagnosis = diagnose_record(with_counts(EpisodeCounts(num_groups=64, num_all_one=62)))
    assert "too easy" in diagnosis.most_likely_cause


def test_a_policy_that_never_calls_its_tools_is_warned_of_unless_it_writes_at_random() -> None:
    poor = {"num_episodes": 100, "num_tool_users": 0, "num_unpaid": 100}
    assert rollouts.unused_tools(**poor, entropy=0.5).verdict == "warning"
    assert rollouts.unused_tools(**poor, entropy=4.5).verdict == "ok"


def test_tokens_that_may_not_be_trained_are_named_with_their_reason() -> None:
    found = rollouts.dropped_tokens(num_tokens=100, drops={"aborted": 60})
    assert found.verdict == "fault" and "aborted" in found.cause


def test_samples_above_the_cap_are_stale_under_their_older_name_too() -> None:
    for name in ("clip_fraction", "is_weight_capped_share"):
        record = with_counts(EpisodeCounts(), {"step": 1, "age_max": 1, name: 0.2})
        assert diagnose_record(record).findings[0].check == "stale samples", name


def test_a_gap_at_any_age_is_none_of_engine_and_trainer_but_one_at_age_0_is() -> None:
    stale = with_counts(EpisodeCounts(), {"step": 1, "age_max": 1, "max_abs_logprob_gap": 2.0})
    fresh = with_counts(EpisodeCounts(), {"step": 1, "age_max": 0, "max_abs_logprob_gap": 2.0})
    assert all(found.verdict != "fault" for found in diagnose_record(stale).findings)
    assert diagnose_record(fresh).findings[0].check == "sampler/trainer gap"


def test_a_reward_that_rises_through_noise_is_fine() -> None:
    assert training.reward_trend([0.2 + step / 100 + 0.05 * (-1) ** step for step in range(40)]).verdict == "ok"


def test_a_solved_task_may_be_flat() -> None:
    assert training.reward_trend([0.95 + 0.01 * (-1) ** step for step in range(40)]).verdict == "ok"


def test_an_empty_record_measures_nothing_and_the_document_has_every_check() -> None:
    diagnosis = diagnose_record(RunRecord({}, (), {}, None, is_finished=False))
    assert {found.verdict for found in diagnosis.findings} <= {"ok", "not measured"}
    document = (ROOT / "docs" / "04-doctor.md").read_text()
    assert [found.check for found in diagnosis.findings if f"| {found.check} |" not in document] == []


def test_one_context_that_is_made_otherwise_is_a_fault_with_its_place() -> None:
    exact, other = Rebuilt(9, 9, None), Rebuilt(7, 3, "call 3 (c-3): 50 tokens on record, 40 made again")
    assert rollouts.rebuilt_contexts([exact, exact]).verdict == "ok"
    found = rollouts.rebuilt_contexts([exact, other])
    assert found.verdict == "fault" and found.measured.startswith("12 of 16 contexts") and "call 3 (c-3)" in found.measured
    assert rollouts.rebuilt_contexts((), why_not="another agent").verdict == "not measured"


def test_branches_are_no_trouble_where_the_recipe_asks_for_them() -> None:
    def found(method: str) -> str:
        return rollouts.rewritten_history(num_followers=10, num_branches=9, merged_token_ratio=None, method=method).verdict

    assert (found("keep_all"), found("drop_all")) == ("fault", "ok")
