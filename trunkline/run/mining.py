"""`trunkline tasks mine`: candidates dealt to workers, what became of them written down. Owns the conducting; prints nothing.

source ─► candidates that have no line in the ledger ─► workers, one candidate each ─► a line each ─► report.json
                                                            └─ interrupted: the same command takes the rest up
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline.run.mining_workers import Worker, workers
from trunkline.tasks.factory.candidate import Candidate, Rejected, Source
from trunkline.tasks.factory.ledger import Entry, Ledger
from trunkline.tasks.factory.report import Yield


@dataclass(frozen=True)
class Told:
    """Who hears how it goes."""

    on_found: Callable[[int, bool], None] = lambda num, is_all: None
    """Candidates known so far, and whether these are all."""
    on_begin: Callable[[str], None] = lambda candidate_id: None
    """Work on one begins."""
    on_end: Callable[[Entry], None] = lambda entry: None
    """A candidate is done."""


@dataclass(frozen=True)
class Wanted:
    """How many of a source's candidates are worked on, at most."""

    limit: int | None = None
    """The newest; None: all."""
    sample: int | None = None
    """So many drawn from all, by the hash of their names: a larger sample holds a smaller one. None: no sample."""


async def chosen(source: Source, wanted: Wanted) -> AsyncIterator[Candidate | Rejected]:
    """What a source has, in its order, with no more candidates than are wanted."""
    if wanted.sample is not None:
        everything = [found async for found in source.candidates()]
        drawn = sorted((found.candidate_id for found in everything if isinstance(found, Candidate)), key=_place)[: wanted.sample]
        for found in everything:
            if isinstance(found, Rejected) or found.candidate_id in drawn:
                yield found
        return
    num_found = 0
    async for found in source.candidates():
        num_found += isinstance(found, Candidate)
        if wanted.limit is not None and num_found > wanted.limit:
            return
        yield found


def _place(candidate_id: str) -> bytes:
    return hashlib.sha256(candidate_id.encode()).digest()


@dataclass
class _Mining:
    ledger: Ledger
    told: Told
    timeout_s: float
    known: dict[str, Entry]
    orders: asyncio.Queue[Candidate | None] = field(default_factory=lambda: asyncio.Queue(64))
    num_found: int = 0

    async def find(self, source: Source, num_workers: int, wanted: Wanted) -> None:
        """Puts what is not done yet into the queue, and a None for each worker behind it."""
        async for found in chosen(source, wanted):
            self.num_found += isinstance(found, Candidate)
            self.told.on_found(self.num_found, False)
            if found.candidate_id in self.known:
                continue
            if isinstance(found, Rejected):
                self._end(Entry(found.candidate_id, rejected=(found,)))
            else:
                await self.orders.put(found)
        self.told.on_found(self.num_found, True)
        for _ in range(num_workers):
            await self.orders.put(None)

    async def work(self, worker: Worker) -> None:
        while candidate := await self.orders.get():
            self.told.on_begin(candidate.candidate_id)
            self._end(await worker.work_on(candidate, timeout_s=self.timeout_s))

    def _end(self, entry: Entry) -> None:
        self.ledger.add(entry)
        self.known[entry.candidate_id] = entry
        self.told.on_end(entry)


async def mine(
    source: Source,
    ledger: Ledger,
    setup: Mapping[str, Any],
    *,
    jobs: int,
    wanted: Wanted = Wanted(),
    again: Callable[[Entry], bool] = lambda entry: False,
    timeout_s: float = 1800.0,
    told: Told = Told(),
) -> Yield:
    """Works on every candidate that the ledger has no line of, or one that is to be done `again`.

    Args:
        source: Where candidates come from.
        ledger: What is done already, and where lines go.
        setup: What each worker is told first (mining_worker.Setup).
        jobs: Workers, each about one core.
        wanted: How many candidates, those of earlier calls included.
        again: Which candidates of the ledger are worked on once more.
        timeout_s: Of one candidate.
        told: Who hears how it goes.

    Raises ConfigError: the source cannot be read; MiningFailed: no worker can work here.
    """
    started = time.time()
    known = {candidate_id: entry for candidate_id, entry in ledger.entries().items() if not again(entry)}
    mining = _Mining(ledger, told, timeout_s, known)
    try:
        async with workers(setup, jobs) as crew, asyncio.TaskGroup() as group:
            group.create_task(mining.find(source, len(crew), wanted))
            for worker in crew:
                group.create_task(mining.work(worker))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    counted = Yield.of(mining.known.values())
    write_report(ledger.folder, source, counted, seconds=time.time() - started)
    return counted


def write_report(folder: Path, source: Source, counted: Yield, *, seconds: float) -> None:
    """report.json: the source, the counts, and how long this call took."""
    told = {"source": source.name, "identity": dict(source.identity()), **counted.as_dict(), "seconds_of_last_call": round(seconds)}
    (folder / "report.json").write_text(json.dumps(told, indent=1, ensure_ascii=False, default=str) + "\n", "utf-8")
