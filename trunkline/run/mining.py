"""`trunkline tasks mine`: candidates dealt to workers, what became of them written down. Owns the conducting; prints nothing.

source ─► candidates that have no line in the ledger ─► workers, one candidate each ─► a line each ─┬─────────────► report.json
             pairs of valid ones, by rounds, if wanted ─► workers, one pair each ────► a line each ─┘
                                                            └─ interrupted: the same command takes the rest up
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline.run.mining_workers import Worker, workers
from trunkline.tasks.factory.candidate import Candidate, Order, Rejected, Source
from trunkline.tasks.factory.ledger import Entry, Ledger
from trunkline.tasks.factory.report import Yield
from trunkline.tasks.factory.variants.pairs import Valid, next_pairs


@dataclass(frozen=True)
class Told:
    """Who hears how it goes."""

    on_found: Callable[[int, bool], None] = lambda num, is_all: None
    """Candidates known so far, later the pairs of them too, and whether these are all."""
    on_begin: Callable[[str], None] = lambda candidate_id: None
    """Work on a candidate or a pair begins."""
    on_end: Callable[[Entry], None] = lambda entry: None
    """It is done."""
    on_words: Callable[[str], None] = lambda words: None
    """A worker says in a line what it waits for."""


@dataclass(frozen=True)
class Wanted:
    """What is worked on."""

    limit: int | None = None
    """At most so many candidates, the newest; None: all."""
    sample: int | None = None
    """So many drawn from all, by the hash of their names: a larger sample holds a smaller one. None: no sample."""
    merges: bool = False
    """Whether neighbouring valid ones are merged, once all candidates are done."""


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
    found: dict[str, Candidate] = field(default_factory=dict)

    async def work_through(self, orders: AsyncIterator[Order], crew: Sequence[Worker]) -> None:
        """Every order to the next worker that is free."""
        queue: asyncio.Queue[Order | None] = asyncio.Queue(64)
        async with asyncio.TaskGroup() as group:
            group.create_task(_fill(queue, orders, len(crew)))
            for worker in crew:
                group.create_task(self._work(queue, worker))

    async def candidates(self, source: Source, wanted: Wanted) -> AsyncIterator[Order]:
        """What is not done yet."""
        async for found in chosen(source, wanted):
            if found.candidate_id in self.found:
                continue  # ranges of one package may overlap
            if isinstance(found, Candidate):
                self.found[found.candidate_id] = found
            self.told.on_found(len(self.found), False)
            if found.candidate_id in self.known:
                continue
            if isinstance(found, Rejected):
                self._end(Entry(found.candidate_id, rejected=(found,)))
            else:
                yield Order(found)
        self.told.on_found(len(self.found), True)

    def pairs(self) -> list[Order]:
        """Of what is valid, those that can be worked on at once; [] at the end."""
        valid = [Valid.of(one, self.known[name]) for name, one in self.found.items() if self.known[name].is_valid]
        orders = next_pairs(valid, self.known.values())
        num_done = sum(bool(entry.merges) for entry in self.known.values())
        self.told.on_found(len(self.found) + num_done + len(orders), True)
        return orders

    async def _work(self, queue: asyncio.Queue[Order | None], worker: Worker) -> None:
        while order := await queue.get():
            self.told.on_begin(order.order_id)
            self._end(await worker.work_on(order, timeout_s=self.timeout_s))

    def _end(self, entry: Entry) -> None:
        self.ledger.add(entry)
        self.known[entry.candidate_id] = entry
        self.told.on_end(entry)


async def _each(orders: Sequence[Order]) -> AsyncIterator[Order]:
    for order in orders:
        yield order


async def _fill(queue: asyncio.Queue[Order | None], orders: AsyncIterator[Order], num_workers: int) -> None:
    """And behind them a None for each worker."""
    async for order in orders:
        await queue.put(order)
    for _ in range(num_workers):
        await queue.put(None)


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
    """Works on every candidate, and pair of them, that the ledger has no line of, or one that is to be done `again`.

    Args:
        source: Where candidates come from.
        ledger: What is done already, and where lines go.
        setup: What each worker is told first (mining_worker.Setup).
        jobs: Workers, each about one core.
        wanted: Which and how many candidates, those of earlier calls included.
        again: Which candidates and pairs of the ledger are worked on once more.
        timeout_s: Of one candidate or pair.
        told: Who hears how it goes.

    Raises ConfigError: the source cannot be read; MiningFailed: no worker can work here.
    """
    started = time.time()
    before = ledger.entries()
    known = {candidate_id: entry for candidate_id, entry in before.items() if not again(entry)}
    mining = _Mining(ledger, told, timeout_s, known)
    try:
        async with workers(setup, jobs, told=told.on_words) as crew:
            await mining.work_through(mining.candidates(source, wanted), crew)
            while wanted.merges and (pairs := mining.pairs()):
                await mining.work_through(_each(pairs), crew)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    counted = Yield.of((before | known).values())  # what was to be done again, and is not wanted in this call, has its line still
    write_report(ledger.folder, source, counted, seconds=time.time() - started)
    return counted


def write_report(folder: Path, source: Source, counted: Yield, *, seconds: float) -> None:
    """report.json: the source, the counts, and how long this call took."""
    told = {"source": source.name, "identity": dict(source.identity()), **counted.as_dict(), "seconds_of_last_call": round(seconds)}
    (folder / "report.json").write_text(json.dumps(told, indent=1, ensure_ascii=False, default=str) + "\n", "utf-8")
