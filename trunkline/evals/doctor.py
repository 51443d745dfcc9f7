"""Why is a run not learning? Owns the order of the checks and the one sentence; numbers are run_record's, verdicts the checks'.

run directory ─► RunRecord ─► checks of what was sampled (doctor_rollouts) and of training (doctor_training) ─► Diagnosis
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.evals import doctor_rollouts as rollouts
from trunkline.evals import doctor_training as training
from trunkline.evals.doctor_training import NEWEST_STEPS
from trunkline.evals.finding import SEVERITY, Finding
from trunkline.evals.run_record import EpisodeCounts, RunRecord

_DEFAULT_CLIP_NORM = 1.0


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor says of a run."""

    findings: tuple[Finding, ...]
    """One a check, most important first."""
    most_likely_cause: str
    """One sentence."""
    num_steps: int
    """RL steps on record."""
    is_finished: bool
    """False if the run goes on or ended before its time."""

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "most_likely_cause": self.most_likely_cause,
            "num_steps": self.num_steps,
            "is_finished": self.is_finished,
            "findings": [finding.as_dict() for finding in self.findings],
        }


def diagnose(run_dir: Path, *, first: Sequence[Finding] = ()) -> Diagnosis:
    """Reads a run, finished, going on or crashed, and checks it. Raises InfraError if it cannot be read.

    `first` are checks that somebody else made, whose trouble would explain any other.
    """
    return diagnose_record(RunRecord.read(run_dir), first=first)


def diagnose_record(record: RunRecord, *, first: Sequence[Finding] = ()) -> Diagnosis:
    """All checks, by severity, and within one severity causes before what they cause."""
    findings = tuple(sorted([*first, *_in_causal_order(record)], key=lambda finding: SEVERITY.index(finding.verdict)))
    return Diagnosis(findings, _sentence(findings, record.is_finished), len(record.steps), record.is_finished)


def _sentence(findings: tuple[Finding, ...], is_finished: bool) -> str:
    first = findings[0]
    if not first.is_trouble:
        ended = "" if is_finished else " It is not finished: if it does not go on, its own error and logs/ say why it ended."
        return f"Nothing measured here keeps this run from learning.{ended}"
    opening = "Most likely cause: " if first.verdict == "fault" else "No fault; look first at this: "
    return f"{opening}{first.cause}. What to do: {first.remedy}."


def _in_causal_order(record: RunRecord) -> list[Finding]:
    """A check stands before those whose trouble its own trouble would explain.

    Wrong tokens and missing attempts explain rewards of 0, these explain groups without gradient, these explain zero gradients
    and a flat reward; a collapsed, exploded or broken policy fails all its attempts alike, so it stands before them.
    """
    counts = record.counts or EpisodeCounts()
    newest = RunRecord(record.recipe, record.steps[-NEWEST_STEPS:], record.evaluations, record.counts, record.is_finished)
    # Speed and faults have ranges of their own; thresholds speak of verdicts.
    is_composite = bool(record.knob("rewards.speed", 0.0) or record.knob("rewards.process", 0.0))
    entropies, rewards = record.column("entropy"), record.column("success" if is_composite else "reward")
    merged = newest.column("merged_token_ratio")
    return [
        training.sampler_trainer_gap(_gaps(newest)),
        rollouts.failed_episodes(num_episodes=counts.num_episodes, failures=counts.failures),
        rollouts.unpaid_without_model(
            num_episodes=counts.num_episodes,
            num_unpaid=counts.num_unpaid,
            num_unpaid_silent=counts.num_unpaid_silent,
        ),
        rollouts.cut_episodes(num_episodes=counts.num_episodes, num_cut_unpaid=counts.num_cut_unpaid, cuts=counts.cuts),
        rollouts.length_cuts(num_calls=counts.num_calls, num_length_cuts=counts.num_length_cuts, entropy=counts.entropy),
        rollouts.rewritten_history(
            num_followers=counts.num_followers,
            num_branches=counts.num_branches,
            merged_token_ratio=merged[-1] if merged else None,
            method=record.knob("agent.context.method", "keep_all"),
        ),
        training.shuffled_rewards(is_shuffled=bool(record.knob("stage.shuffle_rewards", False))),
        training.learning_rate(newest.column("learning_rate")),
        rollouts.dropped_tokens(num_tokens=counts.num_tokens, drops=counts.drops),
        training.entropy_collapse(entropies, rewards),
        training.entropy_explosion(entropies),
        training.lost_success(rewards, newest=counts.reward),
        rollouts.equal_groups(
            num_groups=counts.num_groups,
            num_all_zero=counts.num_all_zero,
            num_all_one=counts.num_all_one,
            num_all_other=counts.num_all_other,
            num_too_few=counts.num_too_few,
            entropy=counts.entropy,
        ),
        training.trained_tokens(trained=newest.column("trained_tokens"), sampled=newest.column("sampled_tokens")),
        training.gradient(newest.column("grad_norm"), clip_norm=record.knob("stage.optimizer.clip_norm", _DEFAULT_CLIP_NORM)),
        rollouts.random_policy(entropy=counts.entropy),
        training.staleness(
            ages=newest.column("age_max"),
            max_age=record.max_age,
            # The second name is that of runs before clip_fraction was written for every loss.
            clip_fractions=newest.column("clip_fraction", "is_weight_capped_share"),
        ),
        rollouts.unused_tools(
            num_episodes=counts.num_episodes,
            num_tool_users=counts.num_tool_users,
            num_unpaid=counts.num_unpaid,
            entropy=counts.entropy,
        ),
        training.overfitting(rewards=rewards, heldout_start=_heldout(record, "start"), heldout_end=_heldout(record, "end")),
        training.reward_trend(rewards),
        training.starvation(
            waits=newest.column("wait_seconds"),
            seconds=newest.column("step_seconds"),
            engine=newest.column("engine_utilisation"),
            stalls=newest.column("num_window_stalls"),
        ),
    ]


def _gaps(record: RunRecord) -> list[float]:
    """Where a run does not say it for tokens of the step's own version, steps at age 0 do: all their tokens are of it."""
    measured = record.column("sampler_trainer_gap")
    if measured:
        return measured
    fresh = (row for row in record.steps if row.get("age_max") == 0)
    return [float(row["max_abs_logprob_gap"]) for row in fresh if "max_abs_logprob_gap" in row]


def _heldout(record: RunRecord, moment: str) -> float | None:
    evaluation = record.evaluations.get(moment)
    return None if evaluation is None else evaluation.get("value")
