"""What `trunkline bench gateway` found: rows of memory and growth, and the picture. Owns the form; measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trunkline.bench.gateway.growth import PARTS, GrowthPoint
from trunkline.bench.result import COLOURS, Demand, Result, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MB = 1e6


@dataclass(frozen=True)
class MemoryPoint:
    """Resident memory of the gateway's process at one time."""

    num_calls: int
    """Answered by then, in this phase."""
    resident_bytes: int
    """Of the process."""


@dataclass(frozen=True)
class GatewayResult(Result):
    """With the two curves."""

    memory: tuple[MemoryPoint, ...] = ()
    """In order."""
    growth: tuple[GrowthPoint, ...] = ()
    """By length."""

    def draw(self, path: Path) -> None:
        """Latencies, resident memory, and CPU time by length of the context."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11, 10), layout="constrained")
        latencies, memory, growth = figure.subplots(3, 1, height_ratios=(3, 2, 3))
        self._draw_latencies(latencies)
        self._draw_memory(memory)
        self._draw_growth(growth)
        figure.suptitle(self.title, fontsize="medium")
        path.parent.mkdir(parents=True, exist_ok=True)
        FigureCanvasAgg(figure).print_figure(path, dpi=120)

    def _draw_latencies(self, axes: Axes) -> None:
        for index, (name, values) in enumerate(self.samples.items()):
            axes.ecdf(values, label=f"{name} (n = {len(values):,})", color=COLOURS[index % len(COLOURS)])
        axes.axvline(10, color="#888888", linestyle=":")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel("added latency of a call, ms (from its scheduled time; dotted: demanded of the median)")
        axes.set_ylabel("share of calls below")
        axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))

    def _draw_memory(self, axes: Axes) -> None:
        megabytes = [point.resident_bytes / _MB for point in self.memory]
        axes.plot([point.num_calls for point in self.memory], megabytes, "o-", color=COLOURS[0])
        axes.set_ylim(0, 1.25 * max(megabytes))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("calls answered, in episodes that open and close")
        axes.set_ylabel("resident memory, MB")

    def _draw_growth(self, axes: Axes) -> None:
        lengths, below = [point.num_tokens for point in self.growth], np.zeros(len(self.growth))
        for part, colour in zip(PARTS, (*COLOURS, "#999999"), strict=True):
            above = below + np.array([point.cpu_ms[part] for point in self.growth])
            axes.fill_between(lengths, below, above, label=part, color=colour, linewidth=0)
            below = above
        axes.set_xlabel("tokens of the context (a call that appends about 200)")
        axes.set_ylabel("CPU-ms a call")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5), reverse=True)


def memory_rows(points: Sequence[MemoryPoint]) -> list[Row]:
    """Every reading, and the growth of a straight line through all but the first two: by then every agent has had episodes."""
    name = "resident memory"
    rows = [Row(name, f"after {point.num_calls:,} calls", point.resident_bytes / _MB, "MB") for point in points]
    settled = points[2:]
    slope, _ = np.polyfit([point.num_calls for point in settled], [point.resident_bytes / _MB for point in settled], 1)
    return [*rows, Row(name, "growth over 10,000 calls", float(slope) * 10_000, "MB", Demand("<=", 1))]


def growth_rows(points: Sequence[GrowthPoint]) -> list[Row]:
    """Of each length every part, and what is demanded of the longest."""
    rows = []
    for point in points:
        name = f"context of {point.num_tokens:,} tokens"
        rows += [Row(name, "messages", point.num_messages, ""), Row(name, "new tokens of the prompt, mean", point.num_new_tokens, "")]
        rows += [Row(name, part, point.cpu_ms[part], "CPU-ms") for part in PARTS]
        demand = Demand("<=", 50) if point is points[-1] else None
        rows.append(Row(name, "parse and match", point.cpu_ms["parse"] + point.cpu_ms["match"], "CPU-ms", demand))
        rows.append(Row(name, "all parts", sum(point.cpu_ms.values()), "CPU-ms"))
    return rows
