"""What a worker's process says, and what its end costs: here a shell that speaks the wire, so that nothing is mined."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

import msgspec
import pytest

from trunkline.run.mining_workers import workers
from trunkline.tasks.factory.candidate import Candidate, Order
from trunkline.tasks.factory.ledger import Entry

pytestmark = pytest.mark.anyio

DATES = (dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 1, 2, tzinfo=dt.UTC))
OLDER, NEWER = (Candidate(f"shop-{place}", "a/shop", "a", "b", date, facts={"url": "x"}) for place, date in enumerate(DATES))
PAIR = Order(OLDER, NEWER)
SAID = "waiting until 18:42:10 for GitHub: rate limit"


def speak(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Workers from now on run these lines of shell once they have been set up and asked."""
    program = folder / "worker"
    program.write_text("\n".join(("#!/bin/sh", "read setup", "echo '\"ready\"'", "read order", *lines)) + "\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


async def asked(order: Order, *, timeout_s: float = 60.0) -> tuple[Entry, list[str]]:
    told: list[str] = []
    async with workers({}, 1, told=told.append) as (worker,):
        return await worker.work_on(order, timeout_s=timeout_s), told


async def test_what_a_worker_waits_for_is_told_before_its_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry("shop-0", cpu_s={"run": 1.0})
    speak(tmp_path, monkeypatch, f"echo '\"{SAID}\"'", f"echo '{msgspec.json.encode(entry).decode()}'", "read more")
    assert await asked(Order(OLDER)) == (entry, [SAID])


async def test_a_worker_that_dies_costs_the_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speak(tmp_path, monkeypatch, "echo no memory >&2", "exit 3")
    entry, _ = await asked(PAIR)
    assert (entry.candidate_id, entry.merges, entry.facts) == ("shop-0-and-shop-1", ("shop-0", "shop-1"), {})
    assert [(one.cause, one.detail) for one in entry.rejected] == [("the worker died", "exit status 3: no memory")]


async def test_a_worker_that_takes_too_long_costs_the_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speak(tmp_path, monkeypatch, "read more")
    entry, _ = await asked(PAIR, timeout_s=0.2)
    assert (entry.merges, entry.date) == (("shop-0", "shop-1"), DATES[1].isoformat())
    assert [one.cause for one in entry.rejected] == ["out of time"]
