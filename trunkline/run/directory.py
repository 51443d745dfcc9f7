"""The run directory: what a run leaves behind for people and programs. Owns file names and formats, no measurement.

recipe.toml      the resolved recipe            episodes/    readable episodes, one JSON a line
run.lock         held by the process of the run
metrics.jsonl    every step and evaluation      checkpoints/ policies and optimiser states
summary.json     the result                     logs/        output of engine and trainer
curve.png        success over steps             journal.sqlite  the durable record, with token ids
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from trunkline.errors import ConfigError, InfraError
from trunkline.models.atomic import replacing
from trunkline.pool.file_lock import lock_file
from trunkline.run.recipe import Recipe, dump_recipe
from trunkline.types import Completion, Episode, Reward, walk_to

_NUM_STEP_CHECKPOINTS = 2  # the newest, and the one to fall back on
_DYING_RUN_S = 10.0


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run. `create` makes the folder and refuses one that already holds a run; `open` finds a run that was started."""

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
            with replacing(path / "recipe.toml") as temporary:
                temporary.write_text(dump_recipe(recipe), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write the run directory {path}: {error.strerror}; choose another with run_dir=PATH") from None
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """The directory of a run that was started before. Raises ConfigError if `path` is none."""
        if not _holds_a_run(path):
            raise ConfigError(f"{path} holds no run to resume: it has no recipe.toml; give a run directory, such as runs/quickstart-seed1")
        return cls(path)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """This process is the only one that works on the run, for the length of the block. Raises ConfigError if another does."""
        try:
            descriptor = lock_file(self.path / "run.lock", wait_s=_DYING_RUN_S)
        except BlockingIOError:
            raise ConfigError(f"the run in {self.path} is going on in another process; wait for its end, or stop it") from None
        except OSError as error:
            raise ConfigError(f"cannot write in the run directory {self.path}: {error.strerror}; check its permissions") from None
        try:
            yield
        finally:
            os.close(descriptor)

    def write_recipe(self, recipe: Recipe) -> None:
        """Replaces recipe.toml."""
        try:
            with replacing(self.path / "recipe.toml") as temporary:
                temporary.write_text(dump_recipe(recipe), encoding="utf-8")
        except OSError as error:
            raise InfraError(f"cannot write {self.path / 'recipe.toml'}: {error.strerror}; check the disk") from error

    def remove_leftovers(self) -> None:
        """Removes what processes that were killed were writing when they were."""
        for path in [*self.path.glob("*/.*.tmp"), *self.path.glob("*/.*.old")]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    @property
    def journal(self) -> Path:
        """The durable record."""
        return self.path / "journal.sqlite"

    def log(self, name: str) -> Path:
        """Log file of a part."""
        return self.path / "logs" / f"{name}.log"

    def checkpoint(self, name: str) -> Path:
        """Folder of a checkpoint."""
        return self.path / "checkpoints" / name

    def step_checkpoint(self, step: int) -> Path:
        """Folder of the trainer's state after `step` steps of RL."""
        return self.checkpoint(f"step-{step:06d}")

    @contextlib.contextmanager
    def replacing_checkpoint(self, name: str) -> Iterator[Path]:
        """Yields a folder to fill, which takes the checkpoint's name at the end of the block: a checkpoint is whole, or not there."""
        temporary, final = self.checkpoint(f".{name}.tmp"), self.checkpoint(name)
        shutil.rmtree(temporary, ignore_errors=True)
        yield temporary
        try:
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
        except OSError as error:
            raise InfraError(f"cannot write the checkpoint {final}: {error}; check space and permissions") from error

    def remove_outdated_checkpoints(self, step: int) -> None:
        """Keeps the newest two step checkpoints up to `step`, which has just been completed. Later ones are another history's."""
        folders = sorted((self.path / "checkpoints").glob("step-??????"))
        outdated = [folder for folder in folders if folder <= self.step_checkpoint(step)][:-_NUM_STEP_CHECKPOINTS]
        for folder in outdated:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def weights(self) -> Path:
        """Where weights are published."""
        return self.path / "weights"

    def write_episodes(self, name: str, episodes: Iterable[Episode]) -> None:
        """Writes readable episodes to episodes/NAME.jsonl, in place of what a step wrote that is done again."""
        encode = msgspec.json.Encoder().encode
        path = self.path / "episodes" / f"{name}.jsonl"
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with temporary.open("wb") as file:
                for episode in episodes:
                    file.write(encode(readable_episode(episode)) + b"\n")
            os.replace(temporary, path)
        except OSError as error:
            raise InfraError(f"cannot write {path}: {error.strerror}; check the disk, then resume the run") from error

    def read_summary(self) -> dict[str, Any] | None:
        """summary.json; None if the run is not finished. Raises ConfigError if it cannot be read."""
        try:
            summary: dict[str, Any] = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read {self.path / 'summary.json'}: {error}; remove it to make it anew") from None
        return summary

    def remove_summary(self) -> None:
        """The run is to go on: it is finished no longer."""
        (self.path / "summary.json").unlink(missing_ok=True)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes summary.json atomically."""
        try:
            with replacing(self.path / "summary.json") as temporary:
                temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise InfraError(f"cannot write {self.path / 'summary.json'}: {error.strerror}; check the disk, then resume the run") from error


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
        "rewards": [_readable_reward(reward) for reward in episode.rewards],
        "failure": msgspec.to_builtins(episode.failure) if episode.failure else None,
        "duration_s": round(episode.duration_s, 4),
        "messages": messages,
        "calls": [_readable_call(episode, completion) for completion in episode.completions],
        **({"acts": msgspec.to_builtins(episode.acts)} if episode.acts else {}),
        **({"patch": episode.patch} if episode.patch else {}),
    }


def _readable_reward(reward: Reward) -> dict[str, Any]:
    place = {} if reward.at is None else {"at": reward.at}
    return {"name": reward.name, "value": reward.value, "evidence": reward.evidence, **place}


def _readable_call(episode: Episode, completion: Completion) -> dict[str, Any]:
    return {
        "walk": list(walk_to(completion.reply_node, episode.messages)),
        "num_prompt_tokens": len(completion.prompt_ids),
        "num_shared_tokens": completion.num_shared,
        "num_sampled_tokens": completion.num_sampled,
        "finish_reason": completion.generation.finish_reason,
        "policy_versions": [str(span.version) for span in completion.generation.version_spans],
        "dropped": completion.drop_reason,
    }
