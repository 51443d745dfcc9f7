"""The form of every benchmark's result: rows, a table, JSON, and whether demands hold. Owns the form; measures nothing.

JSON: {"machine", "versions", "command", "rows": [{"row", "metric", "value", "unit", "demand", "holds"}]}; demand and holds are null
where nothing is demanded.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import psutil
from rich.table import Table

Direction = Literal["<=", ">="]


@dataclass(frozen=True)
class Demand:
    """What a value must keep. `Demand("<=", 6.0)`."""

    direction: Direction
    """Whether it may not be above or not below the bound."""
    bound: float
    """In the value's unit."""

    def holds(self, value: float) -> bool:
        """Whether the value keeps it."""
        return value <= self.bound if self.direction == "<=" else value >= self.bound

    def __str__(self) -> str:
        return f"{self.direction} {self.bound:g}"


@dataclass(frozen=True)
class Row:
    """One number."""

    row: str
    """What was measured, such as 'exec in a running sandbox'."""
    metric: str
    """Of it, such as 'median'."""
    value: float
    """The number."""
    unit: str
    """Its unit."""
    demand: Demand | None = None
    """What it must keep."""

    @property
    def holds(self) -> bool | None:
        """Whether it does; None where nothing is demanded."""
        return None if self.demand is None else self.demand.holds(self.value)

    def as_dict(self) -> dict[str, Any]:
        """As the JSON has it."""
        return {**asdict(self), "demand": None if self.demand is None else str(self.demand), "holds": self.holds}


@dataclass(frozen=True)
class Result:
    """All numbers of one run of a benchmark."""

    title: str
    """Of the table and the plot."""
    rows: tuple[Row, ...]
    """In the order of the table."""
    samples: Mapping[str, Sequence[float]]
    """What the plot shows: each series' single measurements."""
    unit: str
    """Of the samples."""

    @property
    def failed(self) -> tuple[Row, ...]:
        """Rows whose demand does not hold."""
        return tuple(row for row in self.rows if row.holds is False)

    def table(self) -> Table:
        """For the terminal."""
        table = Table(title=self.title, title_justify="left", box=None)
        for column in ("row", "metric", "value", "unit", "demand", ""):
            numbers = column in ("value", "demand")
            table.add_column(column, justify="right" if numbers else "left", no_wrap=numbers, min_width=28 if column == "row" else None)
        for before, row in zip((None, *self.rows), self.rows, strict=False):
            verdict = {None: "", True: "holds", False: "FAILS"}[row.holds]
            name = "" if before is not None and before.row == row.row else row.row
            table.add_row(name, row.metric, f"{row.value:,.4g}", row.unit, "" if row.demand is None else str(row.demand), verdict)
        return table

    def write_json(self, path: Path) -> None:
        """With the machine, versions and the command line of this process."""
        content = {
            "machine": machine(),
            "versions": versions(),
            "command": shlex.join(["trunkline", *sys.argv[1:]]),
            "rows": [row.as_dict() for row in self.rows],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def draw(self, path: Path) -> None:
        """The distribution of every series, on a logarithmic axis, with the demands on medians."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 5.5), layout="constrained")
        axes = figure.subplots()
        for index, (name, values) in enumerate(self.samples.items()):
            colour, style = COLOURS[index % len(COLOURS)], _STYLES[index // len(COLOURS) % len(_STYLES)]
            axes.ecdf(values, label=f"{name} (n = {len(values)})", color=colour, linestyle=style)
            for row in self.rows:
                if row.row == name and row.metric == "median" and row.demand is not None:
                    axes.axvline(row.demand.bound, color=colour, linestyle=":")
        axes.set_xscale("log")
        demanded = any(row.metric == "median" and row.demand is not None for row in self.rows)
        axes.set_xlabel(self.unit + (" (dotted: demanded of the median)" if demanded else ""))
        axes.set_ylabel("share of measurements below")
        axes.axhline(0.5, color="#bbbbbb", linewidth=0.8)
        axes.set_title(self.title)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")
        path.parent.mkdir(parents=True, exist_ok=True)
        FigureCanvasAgg(figure).print_figure(path, dpi=120)


COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Told apart also by those who confuse red and green (Okabe and Ito 2008)."""
_STYLES = ("-", "--", "-.")


def machine() -> str:
    """Processor, cores, memory, kernel, and how busy it is."""
    load = os.getloadavg()[0]
    memory = psutil.virtual_memory().total / 2**30
    return f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, load {load:.1f}"


def versions() -> dict[str, str]:
    """Of Python and of what decides numbers."""
    found = {name: version(name) for name in ("trunkline", "torch", "transformers")}
    return {"python": platform.python_version(), **found, **_cuda()}


def _cuda() -> dict[str, str]:
    """The GPU, where what was measured has asked torch for one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    return {"cuda": str(torch.version.cuda), "gpu": torch.cuda.get_device_name()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
