"""All that a run's numbers are written to: metrics.jsonl always, further sinks by name. Owns what becomes of a sink that fails."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from trunkline.errors import ConfigError
from trunkline.metrics.base import MetricsSink, RunInfo
from trunkline.metrics.jsonl import MetricsLog
from trunkline.metrics.tensorboard import TensorBoardSink
from trunkline.metrics.trackio import TrackioSink

SinkMaker = Callable[[RunInfo], MetricsSink]
Note = Callable[[str], None]

# Short name -> the package it needs. The extra that installs the package is called like the short name.
_PACKAGES: Mapping[str, str] = {"tensorboard": "tensorboardX", "trackio": "trackio"}
_SINKS: Mapping[str, SinkMaker] = {"tensorboard": TensorBoardSink, "trackio": TrackioSink}


class MetricsConfig(BaseModel):
    """Where numbers go."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    writers: tuple[str, ...] = Field(
        (), description="Besides metrics.jsonl: tensorboard, trackio, or 'package.module:Class' of a MetricsSink of your own."
    )


class MetricsWriters:
    """Writes each row to metrics.jsonl, then to every sink. A sink that fails is told once and left out from then on.

    Made by `open`, closed by `with`. metrics.jsonl has every row: if it cannot be written, the run ends; nothing else here ends a run.
    """

    def __init__(self, log: MetricsLog, sinks: Mapping[str, MetricsSink], note: Note) -> None:
        self._log = log
        self._sinks = dict(sinks)
        self._note = note

    @classmethod
    def open(cls, path: Path, makers: Mapping[str, SinkMaker], run: RunInfo, note: Note) -> MetricsWriters:
        """The writers of a run: `path` is its metrics.jsonl, `makers` come from find_sinks; `note` says a line to the user."""
        return cls(MetricsLog(path), {name: make(run) for name, make in makers.items()}, note)

    def write(self, kind: str, **numbers: Any) -> None:
        """See MetricsLog.write, which says what it raises."""
        row = self._log.write(kind, **numbers)
        for name, sink in list(self._sinks.items()):
            self._attempt(name, lambda sink=sink: sink.write(row))  # type: ignore[misc]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes every sink; calling it again does nothing more."""
        for name, sink in list(self._sinks.items()):
            self._attempt(name, sink.close)
        self._sinks.clear()

    def _attempt(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever a library for looking on raises, the training goes on
            del self._sinks[name]
            self._note(f"WARNING: metrics writer {name!r} failed and gets no more rows; metrics.jsonl has them all: {error!r}")


def find_sinks(names: Sequence[str]) -> dict[str, SinkMaker]:
    """What makes each sink; a package that is missing is found out here, before the run begins.

    Raises ConfigError on an unknown name, and on a package that is not installed, with the extra that has it.
    """
    return {name: _find_sink(name) for name in names}


def _find_sink(name: str) -> SinkMaker:
    if name in _SINKS:
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            raise ConfigError(f"metrics.writers: {name!r} needs the package {_PACKAGES[name]}; pip install 'trunkline[{name}]'")
        return _SINKS[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(
            f"metrics.writers: no writer is called {name!r}; choose from {', '.join(_SINKS)}, or write 'package.module:Class'"
        )
    try:
        maker: SinkMaker = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise ConfigError(f"metrics.writers: {name!r} cannot be imported ({error}); install it, or correct the path") from error
    except AttributeError:
        raise ConfigError(f"metrics.writers: {module} has no {attribute!r}; correct {name!r}") from None
    return maker
