"""The journal's file: its tables, and opening it to write or to read. Owns the schema version; knows no dataclass.

A record is known by (incarnation, id): a run that starts again records under its next incarnation, and the newest counts.
Rows are only ever added. Token ids are little-endian int32 blobs, log-probabilities float64, experts uint16; what people
read is JSON text.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from trunkline.errors import ConfigError

APPLICATION_ID = 0x74726E6B  # "trnk", in the file's header
SCHEMA_VERSION = 5
_BUSY_TIMEOUT_S = 10.0

_TABLES = """
CREATE TABLE incarnations (incarnation INTEGER PRIMARY KEY, started_at_unix_s REAL NOT NULL);

CREATE TABLE groups (
    incarnation INTEGER NOT NULL, group_id TEXT NOT NULL, submission_index INTEGER NOT NULL, task TEXT NOT NULL,
    UNIQUE (incarnation, group_id));

-- prompt = the first num_shared tokens of the parent's prompt and completion, then new_prompt_ids
-- facts: what the gateway noted beside the tokens; not in schemas 1 and 2
-- routes: of a sparse model, where it sent the call's own tokens (a parent's are with the parent): first place, layers and experts a
--         token as little-endian uint32, uint16, uint16, then the experts in [token, layer, choice]; null without; not in schemas 1 to 3
CREATE TABLE calls (
    incarnation INTEGER NOT NULL, episode_id TEXT NOT NULL, completion_id TEXT NOT NULL, session_id TEXT NOT NULL,
    parent_id TEXT, num_shared INTEGER NOT NULL, new_prompt_ids BLOB NOT NULL, token_ids BLOB NOT NULL, logprobs BLOB NOT NULL,
    finish_reason TEXT NOT NULL, version_spans TEXT NOT NULL, sampling TEXT NOT NULL,
    prompt_node INTEGER NOT NULL, reply_node INTEGER NOT NULL, drop_reason TEXT, facts TEXT NOT NULL DEFAULT '{}', routes BLOB,
    UNIQUE (episode_id, incarnation, completion_id));

CREATE TABLE messages (
    incarnation INTEGER NOT NULL, episode_id TEXT NOT NULL, node INTEGER NOT NULL, parent INTEGER, message TEXT NOT NULL,
    UNIQUE (episode_id, incarnation, node));

-- completion_ids: the calls that belong to the episode, in order; any other call of it was dropped
-- acts: what was done in its sandbox; not in schema 1
-- patch: what it did to its workspace, as a diff in JSON; not in schemas 1 to 4
CREATE TABLE episodes (
    incarnation INTEGER NOT NULL, episode_id TEXT NOT NULL, group_id TEXT NOT NULL, task_id TEXT NOT NULL, attempt INTEGER NOT NULL,
    status TEXT NOT NULL, rewards TEXT NOT NULL, failure TEXT, duration_s REAL NOT NULL,
    completion_ids TEXT NOT NULL, num_messages INTEGER NOT NULL, acts TEXT NOT NULL DEFAULT '[]',
    patch TEXT NOT NULL DEFAULT '""',
    UNIQUE (episode_id, incarnation));
CREATE INDEX episodes_by_group ON episodes (group_id);

-- policy_step: optimiser steps behind the weights that hold the group (trained), or that were current (degenerate)
CREATE TABLE consumed (incarnation INTEGER NOT NULL, group_id TEXT NOT NULL, policy_step INTEGER NOT NULL, reason TEXT NOT NULL);
CREATE TABLE published (incarnation INTEGER NOT NULL, version TEXT NOT NULL);
CREATE TABLE checkpoints (incarnation INTEGER NOT NULL, version TEXT NOT NULL, path TEXT NOT NULL);
"""

_ADDED = (
    (2, "ALTER TABLE episodes ADD COLUMN acts TEXT NOT NULL DEFAULT '[]'"),
    (3, "ALTER TABLE calls ADD COLUMN facts TEXT NOT NULL DEFAULT '{}'"),
    (4, "ALTER TABLE calls ADD COLUMN routes BLOB"),
    (5, "ALTER TABLE episodes ADD COLUMN patch TEXT NOT NULL DEFAULT '\"\"'"),
)
"""What each schema version added."""


def connect_to_write(path: Path) -> sqlite3.Connection:
    """Opens or makes a journal, durable at every commit; the connection may change threads.

    Raises ConfigError if the path cannot be opened, is no journal, or was made by a newer schema.
    """
    try:
        if not path.exists():
            _create(path)
        connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    except (sqlite3.Error, OSError) as error:
        raise ConfigError(f"cannot open the journal {path}: {error}; choose a folder that exists and is writable") from error
    with _closed_on_error(connection, path):
        _prepare(connection, path)
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Opens a journal without changing a record, also while a run writes it, or after one was killed. Raises ConfigError."""
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    except sqlite3.Error as error:
        raise ConfigError(f"cannot read the journal {path}: {error}; check the path") from error
    with _closed_on_error(connection, path):
        _check(connection, path)
    return connection


def check_integrity(connection: sqlite3.Connection, path: Path) -> None:
    """Reads every page. Raises ConfigError if the file is not whole."""
    try:
        findings = [finding for (finding,) in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.Error as error:
        findings = [str(error)]
    if findings != ["ok"]:
        raise ConfigError(
            f"the journal {path} is damaged: {'; '.join(map(str, findings))}; restore it, with its -wal file, from a copy; "
            "without one, a new run can start from a folder under checkpoints/ (model.path=FOLDER cold_start.steps=0)"
        )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Makes the tables of an empty file, or checks those it has; both before anything is changed on disk."""
    if not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
        _create_tables(connection)
    _check(connection, path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < SCHEMA_VERSION:
        connection.execute("BEGIN IMMEDIATE")
        for _, statement in filter(lambda added: version < added[0], _ADDED):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise ConfigError(f"the file system of {path} cannot hold a journal (sqlite mode {mode!r}, not 'wal'); use a local disk")
    connection.execute("PRAGMA synchronous=FULL")


def _create(path: Path) -> None:
    """Makes an empty journal under another name and renames it: whoever finds a file at `path` finds a journal."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".journal-") as folder:
        making = Path(folder) / path.name
        with closing(sqlite3.connect(making, isolation_level=None)) as connection:
            _create_tables(connection)
        making.rename(path)


def _create_tables(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in _TABLES.split(";\n"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID:
        raise ConfigError(f"{path} is an sqlite file, but no journal (application id {application_id}); choose another path")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"{path} was written by a newer Trunkline (journal schema {version}, known: {SCHEMA_VERSION}); upgrade to read it"
        )


@contextmanager
def _closed_on_error(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        connection.close()
        raise ConfigError(f"{path} cannot be used as a journal: {error}; choose another path, or repair this file") from error
    except ConfigError:
        connection.close()
        raise
