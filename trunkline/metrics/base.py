"""Where numbers go besides metrics.jsonl: the plug point, and how a row becomes named scalars. Owns no file and no library."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class RunInfo:
    """What a sink is told of the run that it shows."""

    directory: Path
    """The run directory; its name is the run's name."""
    project: str
    """The recipe's name: what runs of one kind have in common."""
    recipe: Mapping[str, Any]
    """The resolved recipe as JSON values, without anything secret."""
    resumed_at: int | None = None
    """Optimiser steps of the checkpoint that the run goes on from; None if it starts. Rows of later steps come anew."""

    @property
    def name(self) -> str:
        """The run directory's name."""
        return self.directory.resolve().name


class MetricsSink(Protocol):
    """Shows a run's rows somewhere else, as they come. Made by a callable that takes a RunInfo; `write` must not wait for a network.

    >>> class PrintsRewards:
    ...     def __init__(self, run): self.run = run
    ...     def write(self, row): print(self.run.name, row["step"], row["reward"]) if row["kind"] == "rl" else None
    ...     def close(self): pass
    """

    def write(self, row: Mapping[str, Any]) -> None:
        """Takes one row of metrics.jsonl, with `kind` and `time`. What it raises ends the sink, not the run."""
        ...

    def close(self) -> None:
        """No row follows; what is left is written. What it raises is told, and ends nothing."""
        ...


@dataclass(frozen=True)
class Scalars:
    """The numbers of one row under the names that dashboards show."""

    step: int
    """Optimiser step, or round of rejection sampling, counted within the phase."""
    values: Mapping[str, float]
    """Such as 'rl/reward', 'rl/dropped_tokens/greedy', 'evaluation.greedy/value', 'supervised.cold_start/loss'."""


_NOT_SHOWN = frozenset({"time", "kind", "step", "round"})
_ODD_CHARACTERS = re.compile(r"[^-/\w.]")  # TensorBoard has no names with others


class ScalarAxis:
    """Gives each row its place on the step axis. Rows without a step of their own stand at the stage's last one."""

    def __init__(self, *, first_step: int = 0) -> None:
        self._stage_step = first_step

    def scalars(self, row: Mapping[str, Any]) -> Scalars:
        """The row's numbers; texts, truth values and what is missing are left out."""
        step = row.get("step", row.get("round"))
        if step is not None and row["kind"] != "supervised":
            self._stage_step = int(step)
        shown = {name: value for name, value in row.items() if name not in _NOT_SHOWN}
        values = {_ODD_CHARACTERS.sub("_", name): value for name, value in _numbers(shown, _prefix(row))}
        return Scalars(self._stage_step if step is None else int(step), values)


def _prefix(row: Mapping[str, Any]) -> str:
    """The row's kind, told apart by phase, or by what is evaluated: at the start and at the end under one name, so that it is one curve."""
    kind = str(row["kind"])
    if kind == "supervised":
        return f"{kind}.{row.get('phase', '')}"
    _moment, _dot, variant = str(row.get("name", "")).partition(".")
    return f"{kind}.{variant}" if kind == "evaluation" and variant else kind


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{name}/{key}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)
