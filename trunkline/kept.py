"""Texts by key, in memory or in one SQLite file that several runs share. Owns the file; what is kept under which key, its users say.

A text is written once: the first under a key stays, whoever else comes with another.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any, Self

from trunkline.errors import ConfigError, InfraError

_WAIT_S = 60.0
"""For other processes that write."""


class KeptTexts:
    """Get and put; both block for less than a millisecond.

    >>> kept = KeptTexts.open(Path("verdicts.sqlite"))
    >>> kept.put("key", "text"), kept.get("key"), kept.get("other")
    (None, 'text', None)
    """

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._name = name

    @classmethod
    def open(cls, path: Path | None) -> Self:
        """The file, made if it is not there; None: in memory. Raises ConfigError if it is no such file, or cannot be written."""
        name = ":memory:" if path is None else str(path)
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(name, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID")
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"nothing can be kept in {name}: {error}; name a file of our own, or one that is not there yet") from error
        return cls(connection, name)

    def get(self, key: str) -> str | None:
        """The text; None if there is none. Raises InfraError."""
        row = self._ask("SELECT text FROM kept WHERE key = ?", key)
        return None if row is None else str(row[0])

    def put(self, key: str, text: str) -> None:
        """Keeps it, unless there is one already. Raises InfraError."""
        self._ask("INSERT OR IGNORE INTO kept VALUES (?, ?)", key, text)

    def _ask(self, question: str, *values: str) -> Any:
        try:
            return self._connection.execute(question, values).fetchone()
        except sqlite3.Error as error:
            raise InfraError(f"{self._name} cannot be used any more: {error}; is its disk full?") from error


def key_of(*parts: object) -> str:
    """SHA-256 of plain JSON values, in their order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
