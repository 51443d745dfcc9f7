"""The durable numbers of a run: metrics.jsonl, one JSON object a line. Owns the file's format, not what the numbers mean.

A line is whole once its newline is written. What follows the last newline was torn by a crash: readers skip it, and the
next write removes it first, so that a log reopened after a crash goes on cleanly.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from trunkline.errors import InfraError, TrunklineError

_TAIL_BYTES = 1 << 16


class MetricsLog:
    """Appends to one metrics file, which is made at the first write. One process writes; any may read meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, kind: str, **numbers: Any) -> dict[str, Any]:
        """Appends {"time": unix seconds, "kind": kind, **numbers} and returns it; the line has reached the system on return.

        Values are JSON values, nested ones allowed. NaN and infinities are refused with TrunklineError: JSON has no word
        for them, and where they stand a run has diverged. Raises InfraError if the file cannot be written.
        """
        record = {"time": round(time.time(), 3), "kind": kind, **numbers}
        bad = next(_non_finite(record, ""), None)
        if bad is not None:
            name, value = bad
            raise TrunklineError(
                f"metric {name!r} of {kind!r} is {value}; only finite numbers are logged: the run diverged, "
                "or a mean was taken over nothing (lower the learning rate, or look at the lines before it)"
            )
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        try:
            with self.path.open("a+b") as file:
                _cut_torn_line(file)
                file.write(line)
        except OSError as error:
            raise InfraError(f"cannot write metrics to {self.path}: {error}; check the disk") from error
        return record


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics file, in order. Raises InfraError if there is no such file or a whole line is no object."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InfraError(f"cannot read metrics from {path}: {error.strerror}; is this a run directory?") from error
    *whole, _torn = content.split(b"\n")
    return [_parse(line, path, number) for number, line in enumerate(whole, start=1)]


def newest_rows(rows: Iterable[Mapping[str, Any]], kind: str, *, by: str) -> list[Mapping[str, Any]]:
    """Of the rows of `kind` the last for each value of `by`, in its order: a resumed run does steps again, and the log only grows."""
    newest = {row[by]: row for row in rows if row["kind"] == kind}
    return [newest[value] for value in sorted(newest)]


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InfraError(f"{path}, line {number} is not JSON: {line[:80]!r}; delete the line to read the rest") from error
    if not isinstance(record, dict):
        raise InfraError(f"{path}, line {number} is not an object: {line[:80]!r}; delete the line to read the rest")
    return record


def _cut_torn_line(file: BinaryIO) -> None:
    """Cuts the file after its last newline; it costs one byte's read where nothing was torn."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    start = end
    while start > 0:
        start = max(0, start - _TAIL_BYTES)
        file.seek(start)
        newline = file.read(min(_TAIL_BYTES, end - start)).rfind(b"\n")
        if newline >= 0:
            file.truncate(start + newline + 1)
            return
    file.truncate(0)


def _non_finite(value: Any, name: str) -> Iterator[tuple[str, float]]:
    """Every NaN or infinity in `value`, with its dotted name."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _non_finite(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _non_finite(item, f"{name}[{index}]")
