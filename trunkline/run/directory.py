"""The run directory: what a run leaves behind for people and programs. Owns file names and formats, no measurement.

recipe.toml      the resolved recipe            episodes/    readable episodes, one JSON a line
metrics.jsonl    every step and evaluation      checkpoints/ policies and optimiser states
summary.json     the result                     logs/        output of engine and trainer
curve.png        success over steps             journal.sqlite  the durable record, with token ids
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from trunkline.errors import ConfigError
from trunkline.run.recipe import Recipe, dump_recipe
from trunkline.types import Completion, Episode


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run. `create` makes the folder; a folder that already holds a run is refused."""

    path: Path
    """The folder."""

    @classmethod
    def create(cls, recipe: Recipe) -> RunDirectory:
        """Makes the folder and writes recipe.toml; without a run_dir in the recipe, takes runs/NAME-seedSEED or the next free -2, -3, ...

        Raises ConfigError if a run is already in run_dir, or the path cannot be made.
        """
        path = recipe.run_dir or _free_path(Path("runs") / f"{recipe.name}-seed{recipe.seed}")
        if _holds_a_run(path):
            raise ConfigError(f"{path} already holds a run; choose another with run_dir=PATH, or remove it")
        try:
            for folder in ("episodes", "checkpoints", "logs", "weights"):
                (path / folder).mkdir(parents=True, exist_ok=True)
            (path / "recipe.toml").write_text(dump_recipe(recipe), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write the run directory {path}: {error.strerror}; choose another with run_dir=PATH") from None
        return cls(path)

    def log(self, name: str) -> Path:
        """Log file of a part."""
        return self.path / "logs" / f"{name}.log"

    def checkpoint(self, name: str) -> Path:
        """Folder of a checkpoint."""
        return self.path / "checkpoints" / name

    @property
    def weights(self) -> Path:
        """Where weights are published."""
        return self.path / "weights"

    def write_episodes(self, name: str, episodes: Iterable[Episode]) -> None:
        """Appends readable episodes to episodes/NAME.jsonl."""
        encode = msgspec.json.Encoder().encode
        with (self.path / "episodes" / f"{name}.jsonl").open("ab") as file:
            for episode in episodes:
                file.write(encode(readable_episode(episode)) + b"\n")

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes summary.json atomically."""
        temporary = self.path / "summary.json.tmp"
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, self.path / "summary.json")


def _holds_a_run(path: Path) -> bool:
    return (path / "recipe.toml").exists()


def _free_path(path: Path) -> Path:
    candidates = itertools.chain([path], (path.with_name(f"{path.name}-{number}") for number in itertools.count(2)))
    return next(candidate for candidate in candidates if not _holds_a_run(candidate))


def readable_episode(episode: Episode) -> dict[str, Any]:
    """An episode without token ids: each message once, calls as walks over them, rewards with evidence, the cause of a failure."""
    messages = []
    for index, node in enumerate(episode.messages):
        message = node.message
        entry: dict[str, Any] = {"id": index, "parent": node.parent, "role": message.role, "content": message.content}
        if message.tool_calls:
            entry["tool_calls"] = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
        messages.append(entry)
    return {
        "episode_id": episode.episode_id,
        "task_id": episode.task_id,
        "status": episode.status,
        "reward": episode.reward,
        "rewards": [{"name": reward.name, "value": reward.value, "evidence": reward.evidence} for reward in episode.rewards],
        "failure": msgspec.to_builtins(episode.failure) if episode.failure else None,
        "duration_s": round(episode.duration_s, 4),
        "messages": messages,
        "calls": [_readable_call(episode, completion) for completion in episode.completions],
    }


def _readable_call(episode: Episode, completion: Completion) -> dict[str, Any]:
    walk: list[int] = []
    node: int | None = completion.reply_node
    while node is not None:
        walk.append(node)
        node = episode.messages[node].parent
    return {
        "walk": walk[::-1],
        "num_prompt_tokens": len(completion.prompt_ids),
        "num_shared_tokens": completion.num_shared,
        "num_sampled_tokens": completion.num_sampled,
        "finish_reason": completion.generation.finish_reason,
        "policy_versions": [str(span.version) for span in completion.generation.version_spans],
        "dropped": completion.drop_reason,
    }
