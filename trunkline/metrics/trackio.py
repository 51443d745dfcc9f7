"""trackio's local store, which `trackio show` serves. Owns the call of the library; names and steps are base.py's.

The library writes from a thread of its own and answers its failures with warnings, so that `write` neither waits nor raises.
Where it keeps its files is its own affair (TRACKIO_DIR); it talks to a network only if its environment variables name a server.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trunkline.metrics.base import RunInfo, ScalarAxis

if TYPE_CHECKING:
    import trackio


class TrackioSink:
    """One run of the project that is named for the recipe."""

    def __init__(self, run: RunInfo) -> None:
        self._run = run
        self._axis = ScalarAxis(first_step=run.resumed_at or 0)
        self._shown: trackio.Run | None = None
        # The library keeps its current run in a context variable: tasks of one event loop do not share it, and its hook at exit uses it.
        self._context = contextvars.copy_context()

    def write(self, row: Mapping[str, Any]) -> None:
        """Queues the row's numbers."""
        scalars = self._axis.scalars(row)
        self._opened().log(dict(scalars.values), step=scalars.step)

    def close(self) -> None:
        """Waits until all is stored, half a minute at most."""
        if self._shown is not None:
            with contextlib.redirect_stdout(sys.stderr):
                self._context.run(self._shown.finish)
            self._shown = None

    def _opened(self) -> trackio.Run:
        if self._shown is None:
            import trackio  # half a second, and not every installation has it

            with contextlib.redirect_stdout(sys.stderr):  # what it says of itself is no part of a command's answer
                self._shown = self._context.run(
                    trackio.init,
                    project=self._run.project,
                    name=self._run.name,
                    config=dict(self._run.recipe),
                    resume="never" if self._run.resumed_at is None else "allow",
                    embed=False,
                    auto_log_cpu=False,
                    auto_log_gpu=False,
                )
        return self._shown
