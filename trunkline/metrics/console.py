"""Live progress of a run in the terminal, or plain lines where there is none. Owns what is shown, not what is measured.

RL ━━━━━━━━━━━━━━━╺━━━━━━━━━━━━━━━━  84/200  reward 0.61 · age 1.2 · merged 74% · tokens/s 5,410 · left 0:31:07
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

_PLAIN_EVERY_S = 5.0
_LIVE_EVERY_S = 0.1


@dataclass
class _Phase:
    """What is being worked on, and how far it is."""

    name: str
    total: int
    started: float
    done: int = 0
    numbers: dict[str, float | str] = field(default_factory=dict)
    last_shown: float = float("-inf")

    def status(self, now: float) -> str:
        """The latest numbers and the time left, such as 'reward 0.61 · left 0:31:07'."""
        parts = [f"{name.replace('_per_s', '/s').replace('_', ' ')} {_short(value)}" for name, value in self.numbers.items()]
        elapsed_s = now - self.started
        if 0 < self.done < self.total:
            parts.append(f"left {_clock(elapsed_s * (self.total - self.done) / self.done)}")
        elif self.done:
            parts.append(f"took {_clock(elapsed_s)}")
        return " · ".join(parts)


class ProgressView:
    """One phase at a time: start, advance, stop. A terminal shows a live bar; anything else gets a line every few seconds.

    Nothing shown may end a run: once the output is closed, the view falls silent. It starts no thread, for a thread beside
    the event loop costs throughput; so the bar moves when something is done.
    """

    def __init__(self, console: Console, *, plain_every_s: float = _PLAIN_EVERY_S) -> None:
        self._console = console
        self._plain_every_s = plain_every_s
        self._phase: _Phase | None = None
        self._live: Progress | None = None
        self._is_closed = False

    def start(self, phase: str, total: int) -> None:
        """Begins a phase of `total` units; one still shown is stopped first."""
        self.stop()
        self._phase = _Phase(phase, total, time.monotonic())
        if self._console.is_terminal and not self._console.is_dumb_terminal and self._console.encoding.startswith("utf"):
            self._live = _live_bar(self._console, self._phase)
            # A run that fails between start and stop must not leave the terminal without its cursor.
            atexit.register(self._close_live, self._live)
            self._guarded(self._live.start)
        self._show()

    def advance(self, done: int, **numbers: float | str) -> None:
        """`done` units are done in all. `numbers` are shown by their names, X_per_s as X/s, until the next call."""
        assert self._phase is not None, "advance() needs a phase: call start() first"
        self._phase.done, self._phase.numbers = done, numbers
        every_s = self._plain_every_s if self._live is None else _LIVE_EVERY_S
        if time.monotonic() - self._phase.last_shown >= every_s:
            self._show()

    def note(self, text: str) -> None:
        """One line that stays, above the bar if there is one."""
        if self._live is None:
            self._guarded(lambda: _write_line(self._console, text))
        else:
            self._guarded(lambda: self._console.print(text, markup=False, highlight=False, soft_wrap=True))

    def stop(self) -> None:
        """Ends the phase with its last numbers; nothing happens without one."""
        if self._phase is None:
            return
        if self._phase.done:
            self._show()
        if self._live is not None:
            atexit.unregister(self._close_live)
            self._close_live(self._live)
        self._phase = self._live = None

    def _show(self) -> None:
        phase, live = self._phase, self._live
        assert phase is not None
        phase.last_shown = time.monotonic()
        status = phase.status(phase.last_shown)
        if live is None:
            self._guarded(lambda: _write_line(self._console, f"{phase.name} {phase.done}/{phase.total}  {status}".rstrip()))
        else:
            self._guarded(lambda: live.update(live.task_ids[0], completed=phase.done, status=status, refresh=True))

    def _close_live(self, live: Progress) -> None:
        self._guarded(live.stop)

    def _guarded(self, action: Callable[[], object]) -> None:
        """Runs the action unless the output is closed; if it turns out to be, that is remembered."""
        if self._is_closed:
            return
        try:
            action()
        except OSError:
            self._is_closed = True
        except ValueError:
            if not self._console.file.closed:
                raise
            self._is_closed = True


def _live_bar(console: Console, phase: _Phase) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}", markup=False),
    )
    live = Progress(*columns, console=console, auto_refresh=False)
    live.add_task(phase.name, total=phase.total, status="")
    return live


def _write_line(console: Console, line: str) -> None:
    """Past the console, to its file: on a broken pipe rich itself ends the process. What cannot be encoded becomes '?'."""
    encoding = console.encoding
    console.file.write(line.encode(encoding, "replace").decode(encoding) + "\n")
    console.file.flush()


def _short(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
