"""CPU seconds and memory of a run, measured on real processes that burn and hold known amounts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from trunkline.metrics.processes import ProcessMeter, UtilisationMeter

_BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"
_THEN_WAIT = "print('ready', flush=True)\ninput()\n"


@contextmanager
def running(code: str) -> Iterator[subprocess.Popen[str]]:
    """A Python child that has run `code` and now waits; it ends with the block."""
    with subprocess.Popen([sys.executable, "-c", code + _THEN_WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child
        child.communicate("\n")


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_own_work_counts() -> None:
    meter = ProcessMeter()
    before = meter.cpu_seconds()
    burn(0.1)
    assert meter.cpu_seconds() - before == pytest.approx(0.1, abs=0.05)


def test_a_child_counts_once_while_it_lives_and_after_it_was_waited_for() -> None:
    meter = ProcessMeter()
    before = meter.cpu_seconds()
    with running(_BURN.format(seconds=0.4)):
        alive = meter.cpu_seconds() - before
    waited_for = meter.cpu_seconds() - before
    assert 0.35 <= alive < 0.7
    assert alive <= waited_for < alive + 0.2


def test_grandchildren_count_alive_and_ended() -> None:
    meter = ProcessMeter()
    before = meter.cpu_seconds()
    grandchild = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {_BURN.format(seconds=0.3)!r}])\n"
    with running(grandchild):
        assert meter.cpu_seconds() - before >= 0.28
    assert meter.cpu_seconds() - before >= 0.28


def test_the_figure_never_falls_while_children_come_and_go() -> None:
    meter = ProcessMeter()
    readings = [meter.cpu_seconds()]
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", _BURN.format(seconds=0.05)])
        while child.poll() is None:
            readings.append(meter.cpu_seconds())
        readings.append(meter.cpu_seconds())
    assert readings == sorted(readings)


def test_excluded_work_is_not_counted() -> None:
    meter = ProcessMeter()
    counted, total = meter.counted_cpu_seconds(), meter.cpu_seconds()
    with meter.excluded():
        burn(0.2)
        assert meter.counted_cpu_seconds() - counted < 0.05
    assert meter.counted_cpu_seconds() - counted < 0.05
    assert meter.cpu_seconds() - total >= 0.19
    burn(0.1)
    assert meter.counted_cpu_seconds() - counted >= 0.09


def test_exclusion_ends_with_an_exception() -> None:
    meter = ProcessMeter()
    with pytest.raises(KeyError), meter.excluded():
        raise KeyError
    before = meter.counted_cpu_seconds()
    burn(0.1)
    assert meter.counted_cpu_seconds() - before >= 0.09


def test_memory_is_summed_over_processes_and_its_peak_is_kept() -> None:
    meter = ProcessMeter()
    assert meter.peak_rss_bytes == 0
    alone = meter.sample_rss()
    num_bytes = 50_000_000
    with running(f"held = bytearray(b'x') * {num_bytes}\n"):
        together = meter.sample_rss()
    assert together - alone >= num_bytes
    assert meter.sample_rss() < together
    assert meter.peak_rss_bytes == together


def test_wall_seconds_run_from_the_start_of_the_process() -> None:
    meter = ProcessMeter()
    first = meter.wall_seconds()
    time.sleep(0.05)
    assert first > 0
    assert meter.wall_seconds() - first == pytest.approx(0.05, abs=0.04)


def test_utilisation_tells_a_busy_process_from_an_idle_one_and_starts_anew_at_each_reading() -> None:
    with running("") as idle:
        meter = UtilisationMeter({"own": os.getpid(), "idle": idle.pid})
        burn(0.3)
        busy = meter.read()
        assert busy["own_utilisation"] > 5 * busy["idle_utilisation"]
        time.sleep(0.3)
        assert meter.read()["own_utilisation"] < busy["own_utilisation"]


def test_a_process_that_is_gone_uses_nothing() -> None:
    with running("") as child:
        meter = UtilisationMeter({"child": child.pid})
    assert meter.read() == {"child_utilisation": 0.0}
