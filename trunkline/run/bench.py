"""`trunkline bench`: the project's benchmarks, each a table, a plot and JSON. Owns the command line; what is measured is bench/'s."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from trunkline.bench.result import Result

bench_app = typer.Typer(no_args_is_help=True, help="Measure Trunkline on this machine; exit code 1 if a demand does not hold.")
_out = Console()
_err = Console(stderr=True)

Json = Annotated[Path | None, typer.Option("--json", help="Write machine, versions, command and rows to this file.")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw the distributions to this file (PNG, SVG or PDF).")]


@bench_app.callback()
def _bench() -> None:
    """Measure Trunkline on this machine."""


@bench_app.command()
def sandbox(
    json_path: Json = None,
    plot: Plot = None,
    image: Annotated[str | None, typer.Option(help="Compare with the container backend on this image of a Docker engine.")] = None,
    commands: Annotated[int, typer.Option(min=10, help="Commands in a running sandbox.")] = 200,
    starts: Annotated[int, typer.Option(min=4, help="Creations and forks.")] = 40,
    cycles: Annotated[int, typer.Option(min=1, help="Create-run-destroy cycles.")] = 200,
) -> None:
    """Isolated sandboxes: commands, starts, forks, disk, and what is left; about a minute."""
    from trunkline.bench.sandbox import SandboxBenchPlan, bench_sandbox

    plan = SandboxBenchPlan(num_commands=commands, num_starts=starts, num_cycles=cycles, image=image)
    _finish(_watched(lambda folder, advance: bench_sandbox(plan, folder, advance)), json_path, plot)


@bench_app.command()
def gateway(
    json_path: Json = None,
    plot: Plot = None,
    quick: Annotated[bool, typer.Option("--quick", help="Every phase, but briefly: whether it works; its numbers say nothing.")] = False,
) -> None:
    """What a call costs between agent and engine: CPU, latency, throughput, memory, long contexts; about a quarter of an hour."""
    from trunkline.bench.gateway.bench import QUICK, GatewayBenchPlan, bench_gateway

    plan = QUICK if quick else GatewayBenchPlan()
    _finish(_watched(lambda folder, advance: bench_gateway(plan, folder, advance)), json_path, plot)


def _watched(bench: Callable[[Path, Callable[[str, int, int], None]], Coroutine[Any, Any, Result]]) -> Result:
    """Runs a benchmark in a scratch folder, with a bar for each of its parts."""
    with Progress(console=_err, transient=True) as bars, tempfile.TemporaryDirectory(prefix="trunkline-bench-") as folder:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        return asyncio.run(bench(Path(folder), advance))


def _finish(result: Result, json_path: Path | None, plot: Path | None) -> None:
    _out.print(result.table())
    if json_path is not None:
        result.write_json(json_path)
    if plot is not None:
        result.draw(plot)
    if result.failed:
        names = "; ".join(f"{row.row}, {row.metric}: {row.value:.4g} {row.unit}, demanded {row.demand}" for row in result.failed)
        _err.print(f"{len(result.failed)} of the demands fail: {names}", style="red", highlight=False, soft_wrap=True)
        raise typer.Exit(1)
