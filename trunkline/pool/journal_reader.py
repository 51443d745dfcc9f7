"""Reads a journal back into the vocabulary of types.py, also of a run that goes on or was killed. Writes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from trunkline.errors import ConfigError
from trunkline.pool.backlog import KilledCalls
from trunkline.pool.journal_rows import completion_of, episode_of, from_json, message_of, task_of
from trunkline.pool.journal_schema import check_integrity, connect_to_read
from trunkline.types import Boundary, Completion, Episode, EpisodeStatus, Failure, Group, MessageNode, PolicyVersion


@dataclass(frozen=True)
class AttemptRecord:
    """How the last try of one attempt ended, without its tokens."""

    group_id: str
    """Its group."""
    attempt: int
    """0 .. G-1."""
    num_tries: int
    """Tries that ended; more than one where earlier ones failed on our side."""
    status: EpisodeStatus
    """Of the last of them."""
    boundary: Boundary | None
    """Which boundary it crossed; None if it is finished."""


class JournalReader:
    """What is on record. Of a record made under several incarnations the newest counts.

    >>> with JournalReader.open("runs/quickstart/journal.sqlite") as record:  # doctest: +SKIP
    ...     rewards = [episode.reward for episode in record.episodes()]
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    def open(cls, path: Path | str) -> JournalReader:
        """Raises ConfigError if there is no journal at `path`, or it was made by a newer schema."""
        return cls(connect_to_read(Path(path)), Path(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    @property
    def path(self) -> Path:
        """The sqlite file."""
        return self._path

    def check(self) -> None:
        """Reads the whole file. Raises ConfigError if it is damaged: what a copy, a full disk or an editor left of it."""
        check_integrity(self._connection, self._path)

    def read_episode(self, episode_id: str) -> Episode:
        """One ended episode. Raises ConfigError if none of this id is on record."""
        query = "SELECT * FROM episodes WHERE episode_id = ? ORDER BY incarnation DESC LIMIT 1"
        row = self._connection.execute(query, (episode_id,)).fetchone()
        if row is None:
            raise ConfigError(f"{self._path} has no ended episode {episode_id!r}; episodes() lists those it has")
        incarnation = row[0]
        return episode_of(row, self._calls(episode_id, incarnation), self._messages(episode_id, incarnation))

    def read_completions(self, episode_id: str) -> tuple[Completion, ...]:
        """Every call on record of an episode in order of commit, also if it never ended; empty if there are none."""
        (incarnation,) = self._connection.execute("SELECT max(incarnation) FROM calls WHERE episode_id = ?", (episode_id,)).fetchone()
        return tuple(self._calls(episode_id, incarnation).values())

    def episodes(self) -> Iterator[Episode]:
        """All ended episodes, in order of their end."""
        # The ids first: a caller may take long over an episode, and an open query would keep the writer from shortening its log.
        ids = self._connection.execute("SELECT episode_id FROM episodes GROUP BY episode_id ORDER BY max(rowid)").fetchall()
        return (self.read_episode(episode_id) for (episode_id,) in ids)

    def groups(self) -> Iterator[Group]:
        """All submitted groups in submission order, with the last try of every attempt that ended: fewer than G if unfinished."""
        # sqlite takes bare columns from the row that holds the max().
        return (self.read_group(group_id) for _, group_id in self.submissions())

    def submissions(self) -> list[tuple[int, str]]:
        """(index, group id) of all submitted groups, in submission order."""
        query = "SELECT submission_index, group_id FROM groups GROUP BY group_id ORDER BY submission_index"
        return self._connection.execute(query).fetchall()

    def read_group(self, group_id: str) -> Group:
        """A submitted group with the last try of every attempt that ended. Raises ConfigError if it is not on record."""
        query = "SELECT submission_index, task FROM groups WHERE group_id = ? ORDER BY incarnation DESC LIMIT 1"
        row = self._connection.execute(query, (group_id,)).fetchone()
        if row is None:
            raise ConfigError(f"{self._path} has no group {group_id!r}; groups() lists those it has")
        index, task = row
        return Group(group_id, index, task_of(task), self._last_tries(group_id))

    def attempts(self) -> list[AttemptRecord]:
        """How every attempt of every group stands that ended at least once."""
        # sqlite takes bare columns from the row that holds the max().
        query = (
            "SELECT group_id, attempt, count(DISTINCT episode_id), status, failure, max(rowid) FROM episodes "
            "WHERE group_id IN (SELECT group_id FROM groups) GROUP BY group_id, attempt"
        )
        return [
            AttemptRecord(group_id, attempt, num_tries, status, None if failure is None else from_json(failure, Failure).boundary)
            for group_id, attempt, num_tries, status, failure, _ in self._connection.execute(query).fetchall()
        ]

    def killed(self) -> Mapping[int, KilledCalls]:
        """By incarnation: completions of groups' attempts that did not end in it. In one that goes on, these are running still."""
        # An episode's id begins with its group's; evaluations belong to no group.
        query = """
            SELECT incarnation, count(*), sum(length(token_ids)) / 4 FROM calls AS call
            WHERE substr(episode_id, 1, instr(episode_id, '-') - 1) IN (SELECT group_id FROM groups) AND NOT EXISTS (
                SELECT 1 FROM episodes AS ended WHERE ended.episode_id = call.episode_id AND ended.incarnation = call.incarnation)
            GROUP BY incarnation"""
        rows = self._connection.execute(query).fetchall()
        return {incarnation: KilledCalls(num_completions, num_tokens) for incarnation, num_completions, num_tokens in rows}

    def checkpoints(self) -> list[tuple[PolicyVersion, Path]]:
        """Every checkpoint that was completed, in order; older ones may have been removed since."""
        rows = self._connection.execute("SELECT version, path FROM checkpoints ORDER BY rowid").fetchall()
        return [(PolicyVersion.parse(version), Path(path)) for version, path in rows]

    @property
    def num_incarnations(self) -> int:
        """How often the run was started; 0 if the record is empty."""
        (last,) = self._connection.execute("SELECT coalesce(max(incarnation), 0) FROM incarnations").fetchone()
        return int(last)

    def consumed(self) -> list[tuple[str, int, str]]:
        """(group id, policy step, 'trained' or 'degenerate') in order of consumption; again for what a resumed run delivers again."""
        return self._connection.execute("SELECT group_id, policy_step, reason FROM consumed ORDER BY rowid").fetchall()

    def _last_tries(self, group_id: str) -> tuple[Episode, ...]:
        query = "SELECT episode_id, max(rowid) FROM episodes WHERE group_id = ? GROUP BY attempt ORDER BY attempt"
        rows = self._connection.execute(query, (group_id,)).fetchall()
        return tuple(self.read_episode(episode_id) for episode_id, _ in rows)

    def _calls(self, episode_id: str, incarnation: int | None) -> dict[str, Completion]:
        calls: dict[str, Completion] = {}
        query = "SELECT * FROM calls WHERE episode_id = ? AND incarnation = ? ORDER BY rowid"
        for row in self._connection.execute(query, (episode_id, incarnation)).fetchall():
            completion = completion_of(row, calls)
            calls[completion.completion_id] = completion
        return calls

    def _messages(self, episode_id: str, incarnation: int) -> list[MessageNode]:
        query = "SELECT parent, message FROM messages WHERE episode_id = ? AND incarnation = ? ORDER BY node"
        rows = self._connection.execute(query, (episode_id, incarnation)).fetchall()
        return [message_of(parent, message) for parent, message in rows]
