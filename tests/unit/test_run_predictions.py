"""Predictions of a run: one a task, the last attempt that ended, its patch without our note."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from trunkline.episodes.patch import NOTE
from trunkline.errors import ConfigError
from trunkline.pool.journal import Journal
from trunkline.run.predictions import predictions
from trunkline.types import Episode, Failure, Reward

PATCH = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-1\n+2\n"


def an_episode(number: int, task_id: str, patch: str) -> Episode:
    return Episode(
        f"rollout-{number:05d}-a00", f"rollout-{number:05d}", task_id, 0, "finished", (), (), (Reward("outcome", 0.0, ""),), patch=patch
    )


def failed(episode: Episode) -> Episode:
    return replace(episode, status="failed", rewards=(), failure=Failure("agent", "AgentError", "broke"))


def run_with(folder: Path, *episodes: Episode) -> Path:
    async def record() -> None:
        journal = Journal.open(folder / "journal.sqlite")
        for episode in episodes:
            await journal.record_episode(episode)
        await journal.close()

    (folder / "recipe.toml").write_text('name = "my-model"')
    asyncio.run(record())
    return folder


def test_the_last_attempt_that_ended_stands_for_its_task_whatever_it_earned(tmp_path: Path) -> None:
    done = run_with(
        tmp_path,
        an_episode(0, "swebench/django__django-1", "diff --git a/y b/y\n"),
        an_episode(1, "swebench/django__django-1", PATCH),
        failed(an_episode(2, "swebench/django__django-1", "half")),
        an_episode(3, "trunkline/page-caption", ""),
    )
    assert predictions(done) == [
        {"instance_id": "django__django-1", "model_name_or_path": "my-model", "model_patch": PATCH},
        {"instance_id": "trunkline__page-caption", "model_name_or_path": "my-model", "model_patch": ""},
    ]


def test_our_note_is_no_part_of_a_prediction(tmp_path: Path) -> None:
    done = run_with(tmp_path, an_episode(0, "swebench/a", PATCH + f"{NOTE}left out: b\n"), an_episode(1, "swebench/b", f"{NOTE}no diff\n"))
    assert [one["model_patch"] for one in predictions(done)] == [PATCH, ""]


def test_a_run_without_an_ended_attempt_has_no_predictions(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no attempt has ended"):
        predictions(run_with(tmp_path, failed(an_episode(0, "swebench/a", ""))))
