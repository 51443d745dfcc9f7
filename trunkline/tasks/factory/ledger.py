"""What became of every candidate: one JSON line each, appended when its work has ended. Owns the file; decides nothing.

DIR/mined.json         which source and options the directory belongs to
DIR/candidates.jsonl   a line a candidate, and one for each pair that was to be merged, in the order of their ends; the newest counts
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from trunkline.errors import ConfigError
from trunkline.tasks.factory.candidate import Rejected

_BELONGS, _LINES = "mined.json", "candidates.jsonl"


@dataclass(frozen=True)
class Made:
    """A task that was written."""

    name: str
    """Of its directory, in DIR/tasks."""
    variant: str
    """mined, injected, merged, inverted, review."""
    kind: str
    """bug, feature, performance, refactor, tests."""
    num_fail_to_pass: int
    """Tests that must turn."""
    num_pass_to_pass: int
    """Tests that must go on passing."""
    certified: bool | None = None
    """None: it was not tried."""
    guessable: bool = False
    """It is certified, but all that its tests expect can be guessed (Certificate.guessable)."""
    refusal: str = ""
    """Why it has no certificate."""


@dataclass(frozen=True)
class Entry:
    """How the work on one candidate, or on a pair of them, ended."""

    candidate_id: str
    """Which; of a pair Order.order_id."""
    date: str = ""
    """Of the change, ISO."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Of the candidate, and what was found out on the way, such as the recipe of its environment."""
    made: tuple[Made, ...] = ()
    """Its tasks; the first is the candidate itself, others are variants."""
    rejected: tuple[Rejected, ...] = ()
    """Why it, or one of its variants, is no task."""
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    """CPU-seconds by stage, of all processes."""
    seconds: float = 0.0
    """Wall time."""
    merges: tuple[str, ...] = ()
    """Of a pair the two candidates that were to be one task, the older first; () of a candidate."""

    @property
    def is_valid(self) -> bool:
        """Whether the change itself became a task."""
        return any(made.variant == "mined" for made in self.made)


@dataclass(frozen=True)
class Ledger:
    """The record in one directory."""

    folder: Path
    """DIR."""

    @classmethod
    def open(cls, folder: Path, belongs: Mapping[str, Any]) -> Ledger:
        """A directory's ledger, new or taken up again. Raises ConfigError if it belongs to another source or other options."""
        path = folder / _BELONGS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if path.exists():
                _require_same(json.loads(path.read_text("utf-8")), dict(belongs), folder)
            else:
                if any(folder.iterdir()):
                    raise ConfigError(f"{folder} holds other things; choose a new directory for --out")
                path.write_text(json.dumps(belongs, indent=1, sort_keys=True) + "\n", "utf-8")
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot keep a record in {folder}: {error}; choose another directory for --out") from error
        return cls(folder)

    @property
    def tasks(self) -> Path:
        """Where task directories go."""
        return self.folder / "tasks"

    def add(self, entry: Entry) -> None:
        """Durable when it returns."""
        with (self.folder / _LINES).open("ab") as file:
            file.write(msgspec.json.encode(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def entries(self) -> dict[str, Entry]:
        """By candidate, the newest of each. A last line that was cut by a crash is taken out of the file: its candidate is done again."""
        path = self.folder / _LINES
        if not path.exists():
            return {}
        whole, _, cut = path.read_bytes().rpartition(b"\n")
        if cut:
            os.truncate(path, len(whole) + bool(whole))
        return {entry.candidate_id: entry for entry in self._read(whole)}

    def _read(self, lines: bytes) -> Iterator[Entry]:
        for number, line in enumerate(filter(None, lines.split(b"\n")), 1):
            try:
                yield msgspec.json.decode(line, type=Entry)
            except msgspec.MsgspecError as error:
                place = f"{self.folder / _LINES}, line {number}"
                raise ConfigError(f"{place}: {error}; mend or remove the line: its candidate is then done again") from error


def _require_same(known: Mapping[str, Any], asked: Mapping[str, Any], folder: Path) -> None:
    differing = sorted(name for name in known.keys() | asked.keys() if known.get(name) != asked.get(name))
    if differing:
        words = "; ".join(f"{name} was {known.get(name)!r} and is now {asked.get(name)!r}" for name in differing)
        raise ConfigError(f"{folder} holds what was mined otherwise: {words}; choose a new directory for --out, or the same values")
