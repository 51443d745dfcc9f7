"""The table of evaluations on the virtual clock, from a run directory made by hand."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tools import call_times
from trunkline.pool.journal import Journal
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
    VersionSpan,
)

RECIPE = "[rewards]\nseconds_per_token = 0.1\n"


def sampled(name: str, node: int, parent_id: str | None) -> Completion:
    generation = Generation((1,) * 10, (-0.5,) * 10, "stop", (VersionSpan(0, 10, PolicyVersion(1, 0)),))
    return Completion(name, "s", (1, 2), generation, SamplingParams(8), node, node + 1, parent_id)


def attempt(number: int, *, outcome: float, num_calls: int) -> Episode:
    name = f"heldout.start-{number:05d}"
    calls = tuple(ToolCall(f"c{place}", "population", json.dumps({"name": f"City {place}"})) for place in range(num_calls))
    messages = [Message("user", "?"), Message("assistant", "", calls), Message("tool", "7.7e6"), Message("assistant", "7.7e6")]
    nodes = tuple(MessageNode(message, place - 1 if place else None) for place, message in enumerate(messages))
    completions = (sampled(f"{name}-c0", 0, None), sampled(f"{name}-c1", 2, f"{name}-c0"))
    rewards = (Reward("outcome", outcome, ""), Reward("speed", 0.5, ""))
    return Episode(f"{name}-a00", name, "heldout/0", 0, "finished", completions, nodes, rewards)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    async def record() -> None:
        journal = Journal.open(tmp_path / "journal.sqlite")
        for episode in (attempt(0, outcome=1.0, num_calls=2), attempt(1, outcome=1.0, num_calls=1), attempt(2, outcome=0.0, num_calls=2)):
            for call in episode.completions:
                await journal.record_completion(episode.episode_id, call, episode.messages)
            await journal.record_episode(episode)
        await journal.close()

    asyncio.run(record())
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def test_a_line_tells_success_and_of_successes_time_tokens_and_parallel_turns(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_times.main([str(run_dir)]) == 0
    line = capsys.readouterr().out
    # Each success: 10 tokens, a second for the look-ups side by side, 10 tokens.
    assert "heldout.start: success 0.667" in line and "3.000 s ± 0.000, 20.0 tokens sampled" in line
    assert "side by side 0.500" in line and "(n = 2)" in line


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_times.main([str(tmp_path)]) == 2
    assert "error:" in capsys.readouterr().err
