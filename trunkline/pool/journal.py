"""The run's durable record: every call, message, episode and consumption, each once. Owns what is written and when it counts.

    gateway ─── record_completion ─────────┐
    episodes ── record_episode ────────────┤
    pool ────── record_group, _consumed ───┼──► rows ──► group commit: one thread, one transaction for all that wait ──► sqlite
    conductor ─ record_published ──────────┘                  └─ a failed write: every waiter gets JournalError, `failed` is set

Each await returns only when its record would survive kill -9 and power loss. A call is stored as its parent plus new token ids.
Reading is journal_reader.py's.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from trunkline.errors import ConfigError
from trunkline.pool.file_lock import lock_file
from trunkline.pool.group_commit import GroupCommit, Row
from trunkline.pool.journal_rows import call_row, episode_row, message_row, to_json
from trunkline.pool.journal_schema import connect_to_write
from trunkline.types import Completion, Episode, MessageNode, PolicyVersion, Task

_DYING_WRITER_S = 3.0


@dataclass
class _OpenEpisode:
    """What of an episode is on record, or on its way, while it is running."""

    calls: dict[str, Completion] = field(default_factory=dict)
    num_messages: int = 0


class Journal:
    """Writes the record of one run; a CompletionLog. Made by `open`, used on the event loop that it was opened on.

    Every `record_*` returns once durable and raises JournalError if the write failed, or an earlier one did. ValueError means
    that a record contradicts what is on record already; nothing of it is written.
    """

    def __init__(self, path: Path, incarnation: int, commits: GroupCommit, lock: int) -> None:
        self._path = path
        self._incarnation = incarnation
        self._commits = commits
        self._lock: int | None = lock
        self._open_episodes: dict[str, _OpenEpisode] = {}

    @classmethod
    def open(cls, path: Path | str) -> Journal:
        """Opens or makes the journal and begins its next incarnation. Call it on a running event loop.

        Raises ConfigError if the path cannot be written, is no journal, is newer than this code, or another run is writing it.
        """
        path = Path(path)
        loop = asyncio.get_running_loop()
        lock = _lock(path)
        try:
            connection = connect_to_write(path)
            incarnation = _begin_incarnation(connection, path)
        except ConfigError:
            os.close(lock)
            raise
        commits = GroupCommit(connection, path, loop)
        commits.start()
        return cls(path, incarnation, commits, lock)

    @property
    def path(self) -> Path:
        """The sqlite file."""
        return self._path

    @property
    def incarnation(self) -> int:
        """How often the run was started, this time included."""
        return self._incarnation

    @property
    def failed(self) -> asyncio.Future[None]:
        """Gets a JournalError when a write fails; pending as long as all is well."""
        return self._commits.failed

    async def record_group(self, group_id: str, index: int, task: Task) -> None:
        """A group was submitted."""
        await self._commits.write([Row("groups", (self._incarnation, group_id, index, to_json(task)))])

    async def record_completion(self, episode_id: str, completion: Completion, messages: Sequence[MessageNode]) -> None:
        """A call was sampled; `messages` are the nodes that it adds to the episode's tree, in index order.

        Raises ValueError if its prompt does not begin with the recorded tokens of its parent.
        """
        episode = self._open_episodes.setdefault(episode_id, _OpenEpisode())
        await self._commits.write(self._call_rows(episode_id, episode, completion, messages))

    async def record_episode(self, episode: Episode) -> None:
        """An attempt ended. Calls and messages of it that are not on record yet are written with it."""
        end = episode_row(self._incarnation, episode)
        recorded = self._open_episodes.pop(episode.episode_id, None) or _OpenEpisode()
        rows = self._message_rows(episode.episode_id, recorded, episode.messages[recorded.num_messages :])
        for completion in episode.completions:
            if completion.completion_id not in recorded.calls:
                rows += self._call_rows(episode.episode_id, recorded, completion, ())
        await self._commits.write([*rows, end])

    async def record_consumed(self, group_ids: Sequence[str], *, step: int, reason: Literal["trained", "degenerate"]) -> None:
        """Groups left the window: taken for the optimiser step that makes policy step `step`, or discarded while it was current.

        All of them are on record or none, so that a step that was cut short is never known in part.
        """
        await self._commits.write([Row("consumed", (self._incarnation, group_id, step, reason)) for group_id in group_ids])

    async def record_published(self, version: PolicyVersion) -> None:
        """Weights went out to the engine."""
        await self._commits.write([Row("published", (self._incarnation, str(version)))])

    async def record_checkpoint(self, version: PolicyVersion, *, path: Path) -> None:
        """The trainer's state at `version` is complete on disk."""
        await self._commits.write([Row("checkpoints", (self._incarnation, str(version), str(path)))])

    async def close(self) -> None:
        """Waits until all is written and closes the file. Calling it again does nothing more."""
        await self._commits.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _call_rows(self, episode_id: str, episode: _OpenEpisode, completion: Completion, messages: Sequence[MessageNode]) -> list[Row]:
        _check_parent(episode_id, episode, completion)
        call = call_row(self._incarnation, episode_id, completion)
        rows = self._message_rows(episode_id, episode, messages)
        episode.calls[completion.completion_id] = completion
        return [*rows, call]

    def _message_rows(self, episode_id: str, episode: _OpenEpisode, messages: Sequence[MessageNode]) -> list[Row]:
        first = episode.num_messages
        rows = [message_row(self._incarnation, episode_id, node, content) for node, content in enumerate(messages, start=first)]
        episode.num_messages += len(messages)
        return rows


def _check_parent(episode_id: str, episode: _OpenEpisode, completion: Completion) -> None:
    """The prompt is stored as the parent's tokens plus new ones, so it must begin with them."""
    shared = completion.num_shared
    if shared == 0:
        return
    parent = episode.calls.get(completion.parent_id or "")
    if parent is None:
        raise ValueError(
            f"completion {completion.completion_id}: parent {completion.parent_id!r} is no call on record of the running episode "
            f"{episode_id}; record the parent first"
        )
    prompt_ids, num_parent = completion.prompt_ids, min(shared, len(parent.prompt_ids))  # no copy of a long context but this slice
    begins = prompt_ids[:num_parent] == parent.prompt_ids[:num_parent]
    if not (begins and prompt_ids[num_parent:shared] == parent.generation.token_ids[: shared - num_parent] and len(prompt_ids) >= shared):
        raise ValueError(
            f"completion {completion.completion_id}: its prompt does not begin with the first {shared} tokens of "
            f"{parent.completion_id}; correct num_shared, or record it as a new branch (0)"
        )


def _lock(path: Path) -> int:
    """One writer at a time. A file of its own, because closing any descriptor of the sqlite file would drop sqlite's own locks."""
    try:
        return lock_file(path.with_name(path.name + ".lock"), wait_s=_DYING_WRITER_S)
    except BlockingIOError:
        raise ConfigError(f"another run is writing the journal {path}; stop it, or choose another run directory") from None
    except OSError as error:
        raise ConfigError(f"cannot write the journal {path}: {error.strerror}; choose a folder that exists and is writable") from error


def _begin_incarnation(connection: sqlite3.Connection, path: Path) -> int:
    try:
        (last,) = connection.execute("SELECT coalesce(max(incarnation), 0) FROM incarnations").fetchone()
        connection.execute("INSERT INTO incarnations VALUES (?, ?)", (last + 1, time.time()))
    except sqlite3.Error as error:
        connection.close()
        raise ConfigError(f"the journal {path} cannot be written: {error}; check free space and permissions") from error
    return int(last) + 1
