"""The progress view on a pipe, on a terminal, and on outputs that close under it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from rich.console import Console

from trunkline.metrics.console import ProgressView

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


def plain_view(*, every_s: float = 0.0) -> tuple[ProgressView, io.StringIO]:
    file = io.StringIO()
    return ProgressView(Console(file=file, force_terminal=False), plain_every_s=every_s), file


def live_view() -> tuple[ProgressView, io.StringIO]:
    file = io.StringIO()
    return ProgressView(Console(file=file, force_terminal=True, width=160, _environ={"TERM": "xterm"})), file


def test_a_pipe_gets_one_plain_line_each_time() -> None:
    view, file = plain_view()
    view.start("RL", 200)
    view.advance(12, reward=0.5312, merged="74%", tokens_per_s=5410.4)
    lines = file.getvalue().splitlines()
    assert lines[0] == "RL 0/200"
    assert lines[1].startswith("RL 12/200  reward 0.531 · merged 74% · tokens/s 5,410 · left 0:")
    assert "\x1b" not in file.getvalue()


def test_plain_lines_keep_their_distance_and_the_last_state_is_always_shown() -> None:
    view, file = plain_view(every_s=3600)
    view.start("cold start", 100)
    for done in range(1, 101):
        view.advance(done, loss=1 / done)
    view.stop()
    first, last = file.getvalue().splitlines()
    assert first == "cold start 0/100"
    assert last.startswith("cold start 100/100  loss 0.01 · took 0:00:0")


def test_a_terminal_gets_a_live_bar_and_its_cursor_back() -> None:
    view, file = live_view()
    view.start("RL", 4)
    view.advance(4, reward=1.0)
    view.stop()
    shown = file.getvalue()
    assert "4/4" in shown
    assert "reward 1" in shown
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)


def test_notes_stay_and_are_not_read_as_markup() -> None:
    for view, file in (plain_view(), live_view()):
        view.note("before [bold]")
        view.start("RL", 4)
        view.note("between [red]")
        view.stop()
        view.note("after [/]")
        assert all(text in file.getvalue() for text in ("before [bold]", "between [red]", "after [/]"))


def test_a_new_phase_ends_the_one_before() -> None:
    view, file = live_view()
    view.start("cold start", 2)
    view.start("RL", 3)
    view.stop()
    view.stop()
    assert file.getvalue().count(HIDE_CURSOR) == file.getvalue().count(SHOW_CURSOR) == 2


@pytest.mark.parametrize("make_view", [plain_view, live_view])
def test_a_closed_file_silences_the_view(make_view: Callable[[], tuple[ProgressView, io.StringIO]]) -> None:
    view, file = make_view()
    view.start("RL", 4)
    file.close()
    view.advance(1, reward=0.5)
    view.note("nobody reads this")
    view.stop()


def test_a_reader_that_goes_away_does_not_end_the_process() -> None:
    code = """
import sys
from rich.console import Console
from trunkline.metrics.console import ProgressView
view = ProgressView(Console(stderr=True), plain_every_s=0)
view.start("RL", 9)
sys.stdin.readline()
for done in range(1, 9):
    view.advance(done, reward=0.5)
view.stop()
print("survived")
"""
    reading, writing = os.pipe()
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writing, text=True) as child:
        os.close(writing)
        os.close(reading)
        out, _ = child.communicate("\n", timeout=60)
    assert (child.returncode, out) == (0, "survived\n")


def test_an_ascii_output_gets_question_marks_instead_of_an_error() -> None:
    raw = io.BytesIO()
    view = ProgressView(Console(file=io.TextIOWrapper(raw, encoding="ascii"), force_terminal=False), plain_every_s=0)
    view.start("RL", 2)
    view.advance(1, reward=0.5)
    assert b"RL 1/2  reward 0.5 ? left" in raw.getvalue()
