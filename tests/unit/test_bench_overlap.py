"""`bench overlap`: what a recorded run shared, counted by hand on a small one."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from trunkline.attention.forest import build_forest
from trunkline.bench.overlap.bench import OverlapBenchPlan, bench_overlap
from trunkline.bench.overlap.recorded import Recorded, flop_ratio_of, trained_groups, trajectories
from trunkline.bench.result import Result
from trunkline.bench.tree.workloads import Sequences
from trunkline.errors import ConfigError
from trunkline.models.checkpoint import init_decoder, save_decoder
from trunkline.models.config import DecoderConfig
from trunkline.pool.journal import Journal
from trunkline.pool.journal_reader import JournalReader
from trunkline.types import (
    Completion,
    Episode,
    Failure,
    Generation,
    Group,
    Message,
    MessageNode,
    PolicyVersion,
    Reward,
    SamplingParams,
    Task,
    VersionSpan,
)

CONFIG = DecoderConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8)
Calls = list[tuple[tuple[int, ...], tuple[int, ...]]]


def an_episode(group_id: str, attempt: int, reward: float | None, calls: Calls, *, dropped: tuple[int, ...] = ()) -> Episode:
    name = f"{group_id}-a{attempt:02d}"
    completions = []
    for place, (prompt, sampled) in enumerate(calls):
        spans = (VersionSpan(0, len(sampled), PolicyVersion(1, 0)),)
        generation = Generation(sampled, (-0.5,) * len(sampled), "stop", spans)
        reason = "greedy" if place in dropped else None
        completions.append(Completion(f"{name}-c{place}", "s", prompt, generation, SamplingParams(8), 0, 1, drop_reason=reason))
    nodes = (MessageNode(Message("user", "?"), None), MessageNode(Message("assistant", "!"), 0))
    rewards = () if reward is None else (Reward("outcome", reward, "made up"),)
    failure = Failure("infra", "Example", "made up") if reward is None else None
    return Episode(name, group_id, "t/0", attempt, "failed" if failure else "finished", tuple(completions), nodes, rewards, failure)


def a_group(index: int, kind: str, *attempts: tuple[float | None, Calls]) -> Group:
    name = f"g{index:06d}"
    task = Task(f"t/{index}", "set", kind, (Message("user", "?"),), {})
    return Group(name, index, task, tuple(an_episode(name, place, reward, calls) for place, (reward, calls) in enumerate(attempts)))


# Two attempts on the prompt 1 2 3: calls of 5 and 8 tokens, the second extends the first, and a call of 4.
AGENTS = a_group(0, "chain", (1.0, [((1, 2, 3), (4, 5)), ((1, 2, 3, 4, 5, 6), (7, 8))]), (0.0, [((1, 2, 3), (9,))]))
# Nothing is shared but the first token.
APART = a_group(1, "apart", (1.0, [((1, 20), (21,))]), (0.0, [((1, 30), (31,))]))
EQUAL = a_group(2, "apart", (1.0, [((1, 20), (21,))]), (1.0, [((1, 30), (31,))]))


def sequences(*calls: tuple[tuple[int, ...], tuple[int, ...]]) -> Sequences:
    return Sequences(
        tuple(np.array(prompt + sampled) for prompt, sampled in calls),
        tuple(np.array([False] * len(prompt) + [True] * len(sampled)) for prompt, sampled in calls),
    )


def listed(found: Sequences) -> list[tuple[list[int], list[int]]]:
    """Tokens, and places of the trained ones."""
    return [(tokens.tolist(), np.flatnonzero(mask).tolist()) for tokens, mask in zip(found.tokens, found.trained, strict=True)]


def test_calls_that_extend_each_other_become_one_trajectory_with_all_that_they_trained() -> None:
    assert listed(trajectories(sequences(((1, 2), (3,)), ((1, 2, 3, 4), (5, 6))))) == [([1, 2, 3, 4, 5, 6], [2, 4, 5])]


def test_branch_is_a_trajectory_of_its_own_and_trains_no_token_twice() -> None:
    found = trajectories(sequences(((1, 2), (3,)), ((1, 2, 3, 4), (5,)), ((1, 2, 3, 7), (8,))))
    assert listed(found) == [([1, 2, 3, 4, 5], [2, 4]), ([1, 2, 3, 7, 8], [4])]


def test_repeated_call_is_one_trajectory() -> None:
    assert listed(trajectories(sequences(((1, 2), (3,)), ((1, 2), (3,))))) == [([1, 2, 3], [2])]


def test_call_that_ends_inside_another_is_no_trajectory() -> None:
    assert listed(trajectories(sequences(((1, 2, 3), (4,)), ((1,), (2,)), ((5,), (6,))))) == [([1, 2, 3, 4], [1, 3]), ([5, 6], [1])]


def test_tokens_are_counted_as_calls_as_trajectories_and_as_a_forest() -> None:
    sharing = Recorded.of([AGENTS, APART]).sharing(flop_ratio_of(CONFIG))
    assert (sharing.num_call_tokens, sharing.num_trajectory_tokens, sharing.num_forest_tokens) == (5 + 8 + 4 + 3 + 3, 8 + 4 + 3 + 3, 13)
    assert 1 < sharing.trajectory_flop_ratio < 18 / 13 < sharing.call_flop_ratio < 23 / 13


def test_failed_attempts_dropped_calls_and_equal_rewards_are_no_samples() -> None:
    prompt = ((1, 2), (3,))
    dropped = an_episode("g000003", 0, 1.0, [prompt, ((1, 2, 3), (4,))], dropped=(1,))
    others = (an_episode("g000003", 1, 0.0, []), an_episode("g000003", 2, None, [((7, 7), (7,))]))
    group = Group("g000003", 3, AGENTS.task, (dropped, *others))
    assert listed(Recorded.of([group, EQUAL]).calls) == [([1, 2, 3], [2])]


def test_flop_ratio_counts_only_the_experts_of_a_token() -> None:
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8, "qk_norm": "full"}
    few, many = (DecoderConfig(**sizes, intermediate_size=8, num_experts=num, experts_per_token=2) for num in (2, 64))
    forest = build_forest([np.arange(30), np.append(np.arange(29), 60)])
    assert flop_ratio_of(many)(forest) == pytest.approx(flop_ratio_of(few)(forest), rel=0.02)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")

    async def record() -> None:
        log = Journal.open(folder / "journal.sqlite")
        for group in (AGENTS, APART, EQUAL):
            await log.record_group(group.group_id, group.index, group.task)
            for episode in group.episodes:
                await log.record_episode(episode)
        await log.record_consumed([AGENTS.group_id], step=1, reason="trained")
        await log.record_consumed([EQUAL.group_id], step=1, reason="degenerate")
        await log.record_consumed([AGENTS.group_id], step=1, reason="trained")  # again, after a resume
        await log.record_consumed([APART.group_id], step=2, reason="trained")
        await log.close()

    asyncio.run(record())
    (folder / "recipe.toml").write_text('name = "small"\n')
    save_decoder(init_decoder(CONFIG, seed=0), folder / "checkpoints" / "final")
    return folder


def overlap(run_dir: Path, *, num_timed: int = 0) -> Result:
    return bench_overlap(OverlapBenchPlan(run_dir, num_timed=num_timed, num_rounds=1), lambda name, done, total: None)


def test_steps_are_those_on_record_and_redelivered_groups_count_once(run_dir: Path) -> None:
    with JournalReader.open(run_dir / "journal.sqlite") as journal:
        assert trained_groups(journal) == {1: [AGENTS.group_id], 2: [APART.group_id]}


def test_distributions_are_over_steps_and_tasks_and_both_baselines_are_reported(run_dir: Path) -> None:
    values = {(row.row, row.metric): row.value for row in overlap(run_dir).rows}
    assert values["steps: token ratio, calls", "n"] == 2
    assert values["steps: token ratio, calls", "max"] == 17 / 9
    assert values["steps: token ratio, trajectories", "max"] == 12 / 9
    assert values["steps: token ratio, calls", "min"] == values["tasks of apart: token ratio, trajectories", "median"] == 6 / 5
    assert values["tasks of chain: token ratio, calls", "mean"] == 17 / 9
    assert values["steps: tokens, forest", "p10"] == pytest.approx(5.4)


def test_timed_steps_have_speed_ups_and_a_line_in_the_table(run_dir: Path) -> None:
    result = overlap(run_dir, num_timed=1)
    values = {(row.row, row.metric): row.value for row in result.rows}
    ratio = values["steps: FLOP ratio, calls", "max"]
    assert values["timed steps: speed-up, calls", "median"] > 0
    assert values["timed steps: fraction, calls", "median"] == pytest.approx(values["timed steps: speed-up, calls", "median"] / ratio)
    assert "timed steps: speed-up, trajectories" in result.samples
    printed = io.StringIO()
    Console(file=printed, width=90).print(result.table())
    lines = printed.getvalue().splitlines()
    assert any(line.startswith(" timed steps, 1") for line in lines)
    assert any(line.split()[:5] == ["token", "ratio,", "trajectories", "1.20", "1.21"] for line in lines)


def test_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give a run directory"):
        overlap(tmp_path)


def test_run_without_a_checkpoint_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("")
    with pytest.raises(ConfigError, match="has no checkpoint"):
        overlap(tmp_path)


def test_run_that_trained_nothing_by_rl_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text("")
    save_decoder(init_decoder(CONFIG, seed=0), tmp_path / "checkpoints" / "final")
    asyncio.run(_empty_journal(tmp_path / "journal.sqlite"))
    with pytest.raises(ConfigError, match="no step of RL is on record"):
        overlap(tmp_path)


async def _empty_journal(path: Path) -> None:
    await Journal.open(path).close()
