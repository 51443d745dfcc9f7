"""What the attempts of a run changed, as SWE-bench takes it. Owns which attempt stands for a task; the format is swebench.py's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trunkline.episodes.patch import applicable
from trunkline.errors import ConfigError
from trunkline.pool.journal_reader import JournalReader
from trunkline.run.recipe import load_recipe
from trunkline.tasks.formats.swebench import Prediction

_IMPORTED = "swebench/"
"""The owner of tasks that were SWE-bench's (swebench_tasks.py)."""


def predictions(run_dir: Path) -> list[dict[str, Any]]:
    """One prediction a task: of several attempts the last that ended without a failure, whatever it earned.

    Raises ConfigError if `run_dir` is no run, or no attempt has ended in it.
    """
    name = load_recipe(run_dir / "recipe.toml").name
    with JournalReader.open(run_dir / "journal.sqlite") as journal:
        last = {episode.task_id: episode.patch for episode in journal.episodes() if episode.status != "failed"}
    if not last:
        raise ConfigError(f"no attempt has ended in {run_dir} without a failure, so there is nothing to predict with")
    return [vars(Prediction(_instance_id(task_id), name, applicable(patch))) for task_id, patch in sorted(last.items())]


def _instance_id(task_id: str) -> str:
    """As `trunkline tasks export` calls it."""
    return task_id.removeprefix(_IMPORTED).replace("/", "__")
