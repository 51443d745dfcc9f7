"""`trunkline grid`: runs a grid of trainings and prints its table. Owns the printing; the order of runs is bench/grid.py's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trunkline.bench.grid import Grid, GridRun, folder_of, run_grid, runs_of
from trunkline.evals.statistics import one_sided_p


def grid(path: Path, out: Path, *, jobs: int, console: Console) -> None:
    """Runs what is not done and prints the table of what is. Raises ConfigError for a bad grid, InfraError if runs failed."""
    plan = Grid.load(path)
    try:
        asyncio.run(run_grid(plan, out, jobs=jobs, say=lambda line: console.print(line, highlight=False)))
    finally:
        console.print(table_of(plan, out))


def table_of(plan: Grid, out: Path) -> Table:
    """A row a finished run. p: one-sided, that the arm's end is above its start, and that the first arm's end is above this one's.

    An arm that was not evaluated before its stage has the start of the arm that it starts from.
    """
    table = Table(box=None)
    for column in ("arm", "seed", "start", "end", "end > start", "greedy", "p(first arm > this)", "CPU-min", "GiB"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for run in runs_of(plan, out):
        summary = run.summary
        first = GridRun(plan.arms[0], run.seed, folder_of(out, plan.arms[0].name, run.seed)).summary
        if summary is not None:
            origin = GridRun(run.arm, run.seed, folder_of(out, run.arm.start, run.seed)).summary if run.arm.start else None
            start = summary["heldout_success_start"] or (origin and origin["heldout_success_start"])
            table.add_row(*_cells(run, summary, first, start))
    return table


def _cells(run: GridRun, summary: dict[str, Any], first: dict[str, Any] | None, start: dict[str, Any] | None) -> list[str]:
    end = summary["heldout_success_end"]
    greedy = [summary["evaluations"].get(f"{moment}.greedy") for moment in ("start", "end")]
    is_first = first is None or first["run_dir"] == summary["run_dir"]
    return [
        run.arm.name,
        str(run.seed),
        f"{start['value']:.3f}" if start else "",
        f"{end['value']:.3f} [{end['low']:.3f}, {end['high']:.3f}]",
        f"{_p(end, start):.1e}" if start else "",
        " → ".join(f"{rate['value']:.3f}" for rate in greedy if rate),
        "" if is_first or first is None else f"{_p(first['heldout_success_end'], end):.1e}",
        f"{summary['cpu_seconds'] / 60:.1f}",
        f"{summary['peak_rss_bytes'] / 2**30:.1f}",
    ]


def _p(higher: dict[str, Any], lower: dict[str, Any]) -> float:
    successes, base_successes = (round(rate["value"] * rate["n"]) for rate in (higher, lower))
    return one_sided_p(successes, higher["n"], base_successes=base_successes, base_trials=lower["n"])
