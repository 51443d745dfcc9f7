"""One thread that commits what waits: many callers share a transaction. Owns threads and futures; knows no record's meaning.

    event loop                                         writer thread
    write(rows) ── append ──► pending ── the whole backlog ──► BEGIN, INSERTs by table, COMMIT (fsync)
       ▲                                                                  │
       └────────── futures set, one wake-up a transaction ◄───────────────┘ durable, or failed for good

A failed write is not tried again: whether its rows reached the disk is unknown, so the run stops and starts from the file.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.errors import JournalError

_ADVICE = {
    "SQLITE_FULL": "free disk space",
    "SQLITE_IOERR": "check the disk: free space, quota, file size limit, mount",
    "SQLITE_READONLY": "make the file and its folder writable",
    "SQLITE_CORRUPT": "keep the damaged file aside",
    "SQLITE_NOTADB": "keep the damaged file aside",
}


@dataclass(frozen=True)
class Row:
    """One row to insert."""

    table: str
    """The table."""
    values: tuple[Any, ...]
    """One value for each of its columns, in order."""


@dataclass(frozen=True)
class _Waiting:
    rows: Sequence[Row]
    written: asyncio.Future[None]


class GroupCommit:
    """Durable inserts over one connection, which it closes at its end. Make it and call it on one event loop.

    Attributes:
        failed: gets a JournalError when a write fails; that is the end of this object. Pending otherwise.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._path = path
        self._loop = loop
        self._wakeup = threading.Condition()
        self._pending: list[_Waiting] = []
        self._is_closing = False
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self.failed: asyncio.Future[None] = loop.create_future()
        self.failed.add_done_callback(lambda failed: failed.cancelled() or failed.exception())  # asked for, if only by us

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    async def write(self, rows: Sequence[Row]) -> None:
        """Returns once `rows` are durable, all or none. A cancelled caller's rows are written all the same.

        Raises JournalError if they could not be written, or after any earlier failure or close().
        """
        with self._wakeup:
            if self._failure is not None:
                raise JournalError(self._failure)
            if self._is_closing:
                raise JournalError(f"the journal {self._path} is closed; nothing can be recorded any more")
            waiting = _Waiting(rows, self._loop.create_future())
            self._pending.append(waiting)
            self._wakeup.notify()
        await waiting.written

    async def close(self) -> None:
        """Writes what waits, then ends the thread and closes the connection. Calling it again does nothing more."""
        with self._wakeup:
            self._is_closing = True
            self._wakeup.notify()
        await asyncio.to_thread(self._thread.join)

    # --- writer thread --------------------------------------------------------------------------------------------

    def _work(self) -> None:
        batch: list[_Waiting] = []
        try:
            while batch := self._next_batch():
                self._commit(batch)
                self._settle(batch, None)
        except sqlite3.Error as error:
            self._fail(batch, error)
        except BaseException as error:
            self._fail(batch, error)
            raise
        finally:
            self._connection.close()

    def _next_batch(self) -> list[_Waiting]:
        """All that waits, at least one; empty when closing and all is written."""
        with self._wakeup:
            self._wakeup.wait_for(lambda: self._pending or self._is_closing)
            batch, self._pending = self._pending, []
            return batch

    def _commit(self, batch: Sequence[_Waiting]) -> None:
        values_by_table: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for waiting in batch:
            for row in waiting.rows:
                values_by_table[row.table].append(row.values)
        self._connection.execute("BEGIN IMMEDIATE")
        for table, values in values_by_table.items():
            marks = ", ".join("?" * len(values[0]))
            self._connection.executemany(f"INSERT INTO {table} VALUES ({marks})", values)
        self._connection.execute("COMMIT")

    def _fail(self, batch: list[_Waiting], cause: BaseException) -> None:
        code = getattr(cause, "sqlite_errorname", "")
        advice = next((text for prefix, text in _ADVICE.items() if code.startswith(prefix)), "repair the cause")
        message = (
            f"the journal {self._path} cannot be written: {cause} ({code or type(cause).__name__}); "
            f"{advice}, then start the run again; everything acknowledged until now is on record"
        )
        with self._wakeup:
            self._failure = message
            batch = batch + self._pending
            self._pending = []
        error = JournalError(message)
        error.__cause__ = cause
        self._settle(batch, error)

    def _settle(self, batch: Sequence[_Waiting], error: JournalError | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._resolve, batch, error)
        except RuntimeError:
            assert self._loop.is_closed()  # then nobody waits any more

    # --- event loop -----------------------------------------------------------------------------------------------

    def _resolve(self, batch: Sequence[_Waiting], error: JournalError | None) -> None:
        if error is not None and not self.failed.done():
            self.failed.set_exception(error)
        for waiting in batch:
            if waiting.written.done():  # its caller was cancelled
                continue
            if error is None:
                waiting.written.set_result(None)
            else:
                waiting.written.set_exception(error)
