"""The doctor on more real short runs with planted faults: each is one run of some 10 CPU-seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.doctor_runs import train_planted, train_with_cold_start
from trunkline.evals.doctor import diagnose

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("healthy") / "run"
    train_with_cold_start(path)
    return path / "checkpoints" / "cold-start"


@pytest.mark.parametrize(
    ("check", "overrides"),
    [
        ("learning rate", ["stage.optimizer.lr=1e-12"]),
        ("shuffled rewards", ["stage.shuffle_rewards=true"]),
        ("length cuts", ["agent.max_tokens=4"]),
        ("deadlines", ["agent.deadline_s=0.001"]),
        ("deadlines", ["agent.max_turns=1"]),
    ],
    ids=["no-learning-rate", "shuffled", "few-tokens", "short-deadline", "few-turns"],
)
def test_a_fault_of_the_recipe_is_named_first(policy: Path, tmp_path: Path, check: str, overrides: list[str]) -> None:
    train_planted(tmp_path / "run", *overrides, policy=policy)
    first = diagnose(tmp_path / "run").findings[0]
    assert (first.check, first.verdict) == (check, "fault"), first


@pytest.mark.parametrize(
    ("check", "fault"), [("failed attempts", "raising-tools"), ("infrastructure zeros", "swallowing-agent")], ids=["tools", "agent"]
)
def test_a_fault_of_a_part_is_named_first(policy: Path, tmp_path: Path, check: str, fault: str) -> None:
    train_planted(tmp_path / "run", policy=policy, fault=fault)
    first = diagnose(tmp_path / "run").findings[0]
    assert (first.check, first.verdict) == (check, "fault"), first


def test_a_learning_rate_that_destroys_the_policy_is_named_by_the_success_that_it_lost(policy: Path, tmp_path: Path) -> None:
    train_planted(tmp_path / "run", "stage.optimizer.lr=0.03", "stage.steps=12", policy=policy, enough=64)
    diagnosis = diagnose(tmp_path / "run")
    first = diagnosis.findings[0]
    assert (first.check, first.verdict) == ("lost success", "fault"), first
    assert "stage.optimizer.lr" in diagnosis.most_likely_cause
