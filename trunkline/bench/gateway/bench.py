"""The phases of `trunkline bench gateway`, and what is demanded of each. Owns which numbers are taken; not how a call is made.

resident memory; in fresh processes: open loop, each wire ──► sustained ──► 1,000 sessions ──► growth with the context
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import msgspec
import psutil

from trunkline.bench.gateway.child import child
from trunkline.bench.gateway.growth import GrowthPoint, measure_growth
from trunkline.bench.gateway.load import LoadPlan, LoadResult
from trunkline.bench.gateway.material import TextSource, corpus, make_replies, open_tokenizer
from trunkline.bench.gateway.outcome import GatewayResult, MemoryPoint, growth_rows, memory_rows
from trunkline.bench.gateway.served import Costs
from trunkline.bench.result import Demand, Row
from trunkline.errors import InfraError
from trunkline.gateway.markup import CHATML, MarkupRenderer
from trunkline.pool.journal import Journal
from trunkline.types import PolicyVersion

Progress = Callable[[str, int, int], None]
OnLine = Callable[[int], "asyncio.Future[None] | None"]


@dataclass(frozen=True)
class GatewayBenchPlan:
    """How much of each thing is done."""

    open_loop_calls: tuple[tuple[str, int], ...] = (("chat", 6000), ("chat, streamed", 2000), ("messages", 2000), ("responses", 2000))
    """Calls in an open loop, by wire."""
    rate: float = 100.0
    """Calls a second of the open loops."""
    num_sessions: int = 64
    """Agents at once."""
    sustained_calls: int = 8000
    """Calls one after the other by every agent."""
    many_sessions: int = 1000
    """Open at once."""
    memory_calls: int = 100_000
    """Calls over which resident memory is watched."""
    memory_points: int = 10
    """How often it is read."""
    lengths: tuple[int, ...] = (2_000, 8_000, 32_000, 96_000, 192_000)
    """Of contexts, in tokens."""
    is_judged: bool = True
    """Whether the demands are looked at."""


QUICK = GatewayBenchPlan(
    open_loop_calls=(("chat", 40), ("chat, streamed", 20), ("messages", 20), ("responses", 20)),
    rate=40.0,
    num_sessions=4,
    sustained_calls=80,
    many_sessions=20,
    memory_calls=200,
    memory_points=4,
    lengths=(1_000, 2_000),
    is_judged=False,
)
"""Every phase, seconds in all: whether it works. Its numbers say nothing."""


@dataclass
class _Bench:
    """The processes, and what was measured so far."""

    plan: GatewayBenchPlan
    folder: Path
    progress: Progress
    port: int
    operator: aiohttp.ClientSession
    engine: aiohttp.ClientSession
    stub_pid: int
    rows: list[Row] = field(default_factory=list)
    latencies_ms: dict[str, list[float]] = field(default_factory=dict)
    num_loads: int = 0

    async def costs(self) -> Costs:
        """Of the gateway's process."""
        async with self.operator.get("http://gateway/costs") as response:
            return msgspec.json.decode(await response.read(), type=Costs)

    async def stub_seconds(self) -> dict[str, float]:
        """What each call since the last time took in the stub."""
        async with self.engine.get("http://engine/times") as response:
            return msgspec.json.decode(await response.read(), type=dict[str, float])

    async def load(self, name: str, plan: LoadPlan, on_line: OnLine = lambda done: None) -> LoadResult:
        """Runs it in its own process. Raises InfraError if it breaks off."""
        self.num_loads += 1
        plan_path, result_path = self.folder / f"load{self.num_loads}.json", self.folder / f"load{self.num_loads}.result.json"
        plan_path.write_bytes(msgspec.json.encode(plan))
        arguments = ["-m", "trunkline.bench.gateway.load", str(plan_path), str(result_path)]
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                self.progress(name, int(line), plan.num_calls)
                waited = on_line(int(line))
                if waited is not None:
                    await waited
            if await process.wait():
                raise InfraError(f"the load ended with status {process.returncode}; its message is above")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return msgspec.json.decode(result_path.read_bytes(), type=LoadResult)

    def load_plan(self, num_calls: int, **changes: object) -> LoadPlan:
        """Agents of this gateway."""
        plan = LoadPlan(self.port, str(self.folder / "control.sock"), str(self.folder / "corpus.txt"), self.plan.num_sessions, num_calls)
        return msgspec.structs.replace(plan, seed=self.num_loads + 1, **changes)

    def add(self, row: str, metric: str, value: float, unit: str, demand: Demand | None = None) -> None:
        """One number."""
        self.rows.append(Row(row, metric, value, unit, demand))

    def add_latencies(self, row: str, result: LoadResult, stub_s: dict[str, float], *, is_demanded: bool) -> None:
        """Of each call its latency without its own time in the stub."""
        added = sorted(1e3 * (latency - stub_s[name]) for name, latency in result.latency_s.items())
        total = sorted(1e3 * latency for latency in result.latency_s.values())
        self.latencies_ms[row] = added
        self.add(row, "added latency, median", statistics.median(added), "ms", Demand("<=", 10) if is_demanded else None)
        self.add(row, "added latency, 99th percentile", _percentile(added, 0.99), "ms")
        self.add(row, "latency with the stub, median", statistics.median(total), "ms")
        self.add(row, "failed calls", result.num_failed, "calls", Demand("<=", 0))


async def bench_gateway(plan: GatewayBenchPlan, folder: Path, progress: Progress) -> GatewayResult:
    """Runs it; `folder` is scratch, on the disk whose commits are to be measured. Raises InfraError if a process breaks off."""
    text = corpus()
    (folder / "corpus.txt").write_text(text, encoding="ascii")
    tokenizer, tokenizer_name = await asyncio.to_thread(open_tokenizer, text)
    tokenizer.save(folder / "tokenizer")
    renderer = MarkupRenderer(tokenizer, CHATML)
    (folder / "replies.json").write_bytes(msgspec.json.encode(make_replies(renderer)))
    async with _running(plan, folder, progress) as bench:  # fresh: room that another phase had freed would hide what leaks
        memory, memory_failures = await _memory(bench)
    async with _running(plan, folder, progress) as bench:
        for wire, num_calls in plan.open_loop_calls:
            await _open_loop(bench, wire, num_calls)
        await _sustained(bench)
        await _commits(bench)
        await _many_sessions(bench)
        growth = await _growth(bench, renderer, TextSource(text, 0))
    rows = (*bench.rows, memory_failures, *memory_rows(memory), *growth_rows(growth))
    if not plan.is_judged:
        rows = tuple(replace(row, demand=None) for row in rows)
    title = f"Gateway before an engine that answers at once ({tokenizer_name})"
    return GatewayResult(title, rows, bench.latencies_ms, "ms", tuple(memory), tuple(growth))


@asynccontextmanager
async def _running(plan: GatewayBenchPlan, folder: Path, progress: Progress) -> AsyncIterator[_Bench]:
    engine, control = folder / "engine.sock", folder / "control.sock"
    served = ["--tokenizer", str(folder / "tokenizer"), "--engine", str(engine)]
    served += ["--control", str(control), "--journal", str(folder / "journal.sqlite")]
    stub = ["--socket", str(engine), "--replies", str(folder / "replies.json")]
    async with (
        child("trunkline.bench.gateway.stub_engine", *stub, serves=engine) as stub_process,
        child("trunkline.bench.gateway.served", *served, serves=control),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(control))) as operator,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(engine))) as engine_http,
    ):
        async with operator.get("http://gateway/port") as response:
            port = await response.json()
        yield _Bench(plan, folder, progress, port, operator, engine_http, stub_process.pid)


async def _open_loop(bench: _Bench, wire: str, num_calls: int) -> None:
    row = f"{wire}: {bench.plan.rate:g} calls/s"
    before = await bench.costs()
    result = await bench.load(row, bench.load_plan(num_calls, rate=bench.plan.rate, wire=wire))
    spent = (await bench.costs()).cpu_s - before.cpu_s
    bench.add(row, f"calls answered, over {bench.plan.num_sessions} sessions", len(result.latency_s), "calls")
    bench.add(row, "added CPU a call", 1e3 * spent / num_calls, "CPU-ms", Demand("<=", 3))
    bench.add_latencies(row, result, await bench.stub_seconds(), is_demanded=True)


async def _sustained(bench: _Bench) -> None:
    """What limits it is whose core is full."""
    row = f"{bench.plan.num_sessions} sessions, as fast as they go"
    before, stub_before = await bench.costs(), _cpu_s(bench.stub_pid)
    result = await bench.load(row, bench.load_plan(bench.plan.sustained_calls))
    spent, stub_spent = (await bench.costs()).cpu_s - before.cpu_s, _cpu_s(bench.stub_pid) - stub_before
    bench.add(row, "throughput", len(result.latency_s) / result.wall_s, "calls/s", Demand(">=", 300))
    bench.add(row, "CPU of the gateway a call", 1e3 * spent / bench.plan.sustained_calls, "CPU-ms")
    for name, cpu_s in (("gateway and journal", spent), ("stub engine", stub_spent), ("load", result.cpu_s)):
        bench.add(row, f"cores busy: {name}", cpu_s / result.wall_s, "cores")
    bench.add_latencies(row, result, await bench.stub_seconds(), is_demanded=False)


async def _commits(bench: _Bench) -> None:
    """One after the other, alone: what the disk asks of a call that shares its commit with nobody."""
    journal = Journal.open(bench.folder / "alone.sqlite")
    seconds = []
    for step in range(50):
        began = time.perf_counter()
        await journal.record_published(PolicyVersion(1, step))
        seconds.append(time.perf_counter() - began)
    await journal.close()
    bench.add("a durable commit, alone", "median", 1e3 * statistics.median(seconds), "ms")


async def _many_sessions(bench: _Bench) -> None:
    num_sessions = bench.plan.many_sessions
    row = f"{num_sessions:,} open sessions"
    before, memory = await bench.costs(), 0.0

    async def read_memory() -> None:
        nonlocal memory
        memory = max(memory, (await bench.costs()).resident_bytes)

    plan = bench.load_plan(2 * num_sessions, num_sessions=num_sessions, rate=bench.plan.rate)
    result = await bench.load(row, plan, lambda done: asyncio.ensure_future(read_memory()))
    bench.add(row, "opening all, one after the other", sum(result.open_s), "s")
    bench.add(row, "opening one, median", 1e3 * statistics.median(result.open_s), "ms")
    bench.add(row, "resident memory a session", (memory - before.resident_bytes) / 1e3 / num_sessions, "kB")
    bench.add_latencies(row, result, await bench.stub_seconds(), is_demanded=False)


async def _memory(bench: _Bench) -> tuple[list[MemoryPoint], Row]:
    plan, points = bench.plan, [MemoryPoint(0, (await bench.costs()).resident_bytes)]
    every = plan.memory_calls // plan.memory_points

    async def read(done: int) -> None:
        await bench.stub_seconds()
        points.append(MemoryPoint(done, (await bench.costs()).resident_bytes))

    def on_line(done: int) -> asyncio.Future[None] | None:
        return asyncio.ensure_future(read(done)) if done >= every * len(points) else None

    result = await bench.load("resident memory", bench.load_plan(plan.memory_calls), on_line)
    return points, Row("resident memory", "failed calls", result.num_failed, "calls", Demand("<=", 0))


async def _growth(bench: _Bench, renderer: MarkupRenderer, text: TextSource) -> list[GrowthPoint]:
    return await measure_growth(
        bench.folder / "engine.sock", renderer, bench.folder, text, lengths=bench.plan.lengths, progress=bench.progress
    )


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
