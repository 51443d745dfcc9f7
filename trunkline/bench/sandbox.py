"""`trunkline bench sandbox`: how long sandboxes take and what they leave. Owns what is measured; sandboxes are the real ones."""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from trunkline.bench.result import Demand, Result, Row
from trunkline.protocols import Workspace
from trunkline.sandbox import layers
from trunkline.sandbox.catalog import open_sandboxes
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandbox, IsolatedSandboxes
from trunkline.types import Command

NUM_FORKS = 16
REPOSITORY_BYTES = 36 * 2**20
_FILE_BYTES = 12 * 2**10
_TRUE = Command(("/bin/true",))
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SandboxBenchPlan:
    """How often each thing is done."""

    num_commands: int = 200
    """Commands in a running sandbox."""
    num_starts: int = 40
    """Creations, and forks."""
    num_cycles: int = 200
    """Create-run-destroy cycles whose leftovers are counted."""
    image: str | None = None
    """Of a Docker engine, for comparison."""


@dataclass
class _Measured:
    """Rows and samples as they come in."""

    progress: Progress
    rows: list[Row] = field(default_factory=list)
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, seconds: Sequence[float], cpu_seconds: float | None, *, demand_ms: float | None = None) -> None:
        """The distribution of one thing's times."""
        times = sorted(1e3 * one for one in seconds)
        self.samples[name] = times
        demand = None if demand_ms is None else Demand("<=", demand_ms)
        self.rows.append(Row(name, "median", statistics.median(times), "ms", demand))
        self.rows.append(Row(name, "minimum", times[0], "ms"))
        self.rows.append(Row(name, "95th percentile", times[int(0.95 * (len(times) - 1))], "ms"))
        if cpu_seconds is not None:
            self.rows.append(Row(name, "CPU, all processes", 1e3 * cpu_seconds / len(times), "ms"))


async def bench_sandbox(plan: SandboxBenchPlan, folder: Path, progress: Progress) -> Result:
    """Runs it; `folder` is scratch. Raises SandboxUnavailable where there is no isolated sandbox."""
    measured = _Measured(progress)
    repository = folder / "repository"
    await asyncio.to_thread(make_repository, repository)
    before = _traces()
    async with IsolatedSandboxes.open(SandboxConfig()) as sandboxes:
        empty = await sandboxes.prepare(None)
        await _commands(sandboxes, empty, plan, measured)
        await _starts(sandboxes, empty, plan, measured)
        await _forks(sandboxes, repository, measured)
        await _cycles(sandboxes, empty, plan, measured)
    left = {name: len(found - before[name]) for name, found in _traces().items()}
    measured.rows += [Row("left after all sandboxes", name, count, name, Demand("<=", 0)) for name, count in left.items()]
    if plan.image is not None:
        await _docker(plan, plan.image, measured)
    return Result("Sandboxes", tuple(measured.rows), measured.samples, "ms")


def make_repository(folder: Path) -> None:
    """36 MB in files of 12 kB, forty a directory: random, so that no file system shares them."""
    rng = random.Random(0)
    for index in range(REPOSITORY_BYTES // _FILE_BYTES):
        place = folder / f"package{index // 40:02d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"module{index:04d}.py").write_bytes(rng.randbytes(_FILE_BYTES))


async def _commands(sandboxes: IsolatedSandboxes, empty: Workspace, plan: SandboxBenchPlan, measured: _Measured) -> None:
    name = "exec in a running sandbox"
    sandbox = await sandboxes.create(empty)
    for _ in range(10):
        await sandbox.run(_TRUE)
    seconds = await _repeat(name, plan.num_commands, lambda: sandbox.run(_TRUE), measured.progress)
    measured.add(name, seconds, None, demand_ms=6)
    await sandbox.destroy()


async def _starts(sandboxes: IsolatedSandboxes, empty: Workspace, plan: SandboxBenchPlan, measured: _Measured) -> None:
    """One after the other, each destroyed before the next."""
    parent = await sandboxes.create(empty)
    await parent.run(Command.shell("mkdir -p a/b && for i in 1 2 3 4 5 6 7 8; do echo $i > a/b/$i; done"))
    ends: list[float] = []
    for name, start in (
        ("create and first command", lambda: sandboxes.create(empty)),
        ("fork and first command", lambda: sandboxes.fork(parent)),
    ):
        seconds = []
        for index in range(plan.num_starts):
            began = time.perf_counter()
            sandbox = await start()
            await sandbox.run(_TRUE)
            seconds.append(time.perf_counter() - began)
            began = time.perf_counter()
            await sandbox.destroy()
            ends.append(time.perf_counter() - began)
            measured.progress(name, index + 1, plan.num_starts)
        measured.add(name, seconds, None, demand_ms=80)
    measured.add("destroy", ends, None)
    await parent.destroy()


async def _forks(sandboxes: IsolatedSandboxes, repository: Path, measured: _Measured) -> None:
    """All at once, each with an edit and a diff; what they take of the disk beside the one copy they start from."""
    workspace = await sandboxes.prepare(repository)
    parent = await sandboxes.create(workspace)
    await parent.run(Command.shell("echo changed >> package00/module0000.py"))

    async def edit() -> IsolatedSandbox:
        fork = await sandboxes.fork(parent)
        await fork.run(Command.shell("echo changed >> package01/module0040.py"))
        assert len(await fork.diff()) == 2
        return fork

    measured.progress(f"{NUM_FORKS} forks of a 36 MB repository", 0, 1)
    started = time.monotonic()
    forks = await asyncio.gather(*(edit() for _ in range(NUM_FORKS)))
    name = f"{NUM_FORKS} concurrent forks of a 36 MB repository, each edited and compared"
    measured.rows.append(Row(name, "wall", time.monotonic() - started, "s"))
    disk = sum(layers.measure(fork.folder).num_bytes for fork in forks)
    measured.rows.append(Row(name, "disk", disk / 1e6, "MB", Demand("<=", 5)))
    await asyncio.gather(*(sandbox.destroy() for sandbox in (parent, *forks)))
    await sandboxes.discard(workspace)


async def _cycles(sandboxes: IsolatedSandboxes, empty: Workspace, plan: SandboxBenchPlan, measured: _Measured) -> None:
    name = "create, run, destroy"

    async def cycle() -> None:
        sandbox = await sandboxes.create(empty)
        await sandbox.run(_TRUE)
        await sandbox.destroy()

    spent = psutil.Process().cpu_times()
    seconds = await _repeat(name, plan.num_cycles, cycle, measured.progress)
    now = psutil.Process().cpu_times()
    fields = ("user", "system", "children_user", "children_system")
    measured.add(name, seconds, sum(getattr(now, part) - getattr(spent, part) for part in fields))


async def _docker(plan: SandboxBenchPlan, image: str, measured: _Measured) -> None:
    """The same by the container backend."""
    async with open_sandboxes(SandboxConfig(kind="container", image=image)) as sandboxes:
        empty = await sandboxes.prepare(None)
        first = await sandboxes.create(empty)
        name = f"{sandboxes.kind.partition(' (')[0]}: exec in a running sandbox"
        measured.add(name, await _repeat(name, plan.num_commands, lambda: first.run(_TRUE), measured.progress), None)

        async def cycle() -> None:
            sandbox = await sandboxes.create(empty)
            await sandbox.run(_TRUE)
            await sandbox.destroy()

        name = f"{sandboxes.kind.partition(' (')[0]}: create, run, destroy"
        measured.add(name, await _repeat(name, max(2, plan.num_starts // 4), cycle, measured.progress), None)
        await first.destroy()


async def _repeat(name: str, times: int, work: Callable[[], Awaitable[object]], progress: Progress) -> list[float]:
    """Seconds of each."""
    seconds = []
    for index in range(times):
        started = time.perf_counter()
        await work()
        seconds.append(time.perf_counter() - started)
        progress(name, index + 1, times)
    return seconds


def _traces() -> dict[str, set[str]]:
    """What sandboxes could leave behind on this host."""
    base = Path(os.environ.get("TMPDIR") or "/var/tmp") / f"trunkline-sandboxes-{os.geteuid()}"
    us = psutil.Process()
    return {
        "processes": {str(child.pid) for child in us.children(recursive=True)},
        "descriptors": set(os.listdir("/proc/self/fd")),
        "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        "cgroups": {str(path) for root in _cgroup_roots() for path in root.glob(f"trunkline-{us.pid}-*")},
        "files": {str(path) for path in base.glob(f"{us.pid}-*")},
    }


def _cgroup_roots() -> list[Path]:
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(place) for _, place, kind, *_ in lines if kind.startswith("cgroup")]
