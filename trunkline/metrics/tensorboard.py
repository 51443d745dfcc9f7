"""TensorBoard's event files, through tensorboardX. Owns the file beside metrics.jsonl; names and steps are base.py's.

The library's SummaryWriter hands events to a thread that ends silently at the first failed write, after which its caller
waits for ever at a full queue. So its EventsWriter is used, which writes and flushes before it returns.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from trunkline.metrics.base import RunInfo, ScalarAxis

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter


class TensorBoardSink:
    """Writes into the run directory itself: `tensorboard --logdir runs` shows each run under its directory's name."""

    def __init__(self, run: RunInfo) -> None:
        self._run = run
        self._axis = ScalarAxis(first_step=run.resumed_at or 0)
        self._events: EventsWriter | None = None

    def write(self, row: Mapping[str, Any]) -> None:
        """One event with all numbers of the row, on disk on return."""
        events = self._opened()
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        scalars = self._axis.scalars(row)
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.values.items()]
        events.write_event(Event(wall_time=float(row["time"]), step=scalars.step, summary=Summary(value=values)))
        events.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _opened(self) -> EventsWriter:
        """The file, made with the run's first row. A resumed run has TensorBoard forget what was shown of the steps that come anew."""
        if self._events is None:
            with _without_torch():
                from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog
            from tensorboardX.summary import text

            # The library's name holds whole seconds: a run that is resumed at once must not write over its own past.
            self._events = EventsWriter(str(self._run.directory / "events"), filename_suffix=f".{os.getpid()}")
            if self._run.resumed_at is not None:
                start = SessionLog(status=SessionLog.START)
                self._events.write_event(Event(step=self._run.resumed_at + 1, session_log=start))
            recipe = json.dumps(self._run.recipe, indent=2)
            self._events.write_event(Event(step=0, summary=text("recipe", f"```json\n{recipe}\n```")))
        return self._events


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Inside, importing torch fails unless it was imported before.

    tensorboardX imports torch where it can, to draw graphs of models that we never hand it; in the conductor's process that would
    cost seconds and hundreds of megabytes. It can go once the library imports torch where it uses it.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # how the import system is told that a module is not to be had
    try:
        yield
    finally:
        del sys.modules["torch"]
