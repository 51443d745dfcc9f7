"""Pictures of runs: curve.png, and several arms in one. Owns what is drawn; numbers come from metrics.jsonl and summary.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trunkline.errors import ConfigError
from trunkline.evals.statistics import Proportion
from trunkline.metrics.jsonl import newest_rows, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMOOTHING_STEPS = 5
_DPI = 120
_THIN, _THICK, _HELDOUT, _ENTROPY = "#9db8d9", "#1f4e8c", "#c0392b", "#7f8c8d"
# Told apart also by those who confuse red and green (Okabe and Ito 2008).
_ARM_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


@dataclass(frozen=True)
class TrainingCurve:
    """What the training attempts earned, step by step."""

    steps: tuple[int, ...]
    """Optimiser steps of RL, or rounds of rejection sampling, rising."""
    success: tuple[float, ...]
    """Share of them that earned the full outcome reward; the mean reward where a row has no success."""
    reward: tuple[float, ...]
    """Their mean reward."""
    entropy: tuple[float, ...]
    """Nats of a sampled token, for each step; empty if a row has none."""

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> Self:
        """From metrics.jsonl's rows, of which those of kind 'rl' and 'round' count; of a step done again after a resume the last."""
        steps = newest_rows(rows, "rl", by="step")
        ordered = steps or newest_rows(rows, "round", by="round")
        return cls(
            steps=tuple(row["step" if steps else "round"] for row in ordered),
            success=tuple(row.get("success", row["reward"]) for row in ordered),
            reward=tuple(row["reward"] for row in ordered),
            entropy=tuple(row["entropy"] for row in ordered) if all("entropy" in row for row in ordered) else (),
        )


@dataclass(frozen=True)
class ArmRun:
    """One seed of an arm, as its run directory has it."""

    curve: TrainingCurve
    """Empty for arms that sample nothing while they train."""
    start: Proportion | None
    """Held-out success before; None of an arm that starts from a checkpoint which another has evaluated."""
    end: Proportion
    """And after."""

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        """From metrics.jsonl. Raises ConfigError if there is none, or no held-out evaluation after the stage yet."""
        rows = read_metrics(run_dir / "metrics.jsonl")
        rates = {row["name"]: row for row in rows if row["kind"] == "evaluation"}  # of an evaluation done again, the last
        if "end" not in rates:
            raise ConfigError(f"{run_dir} has no held-out evaluation after its training yet; resume it, or leave it out")
        start, end = (
            Proportion(**{field: rates[name][field] for field in ("value", "low", "high", "n")}) if name in rates else None
            for name in ("start", "end")
        )
        assert end is not None
        return cls(TrainingCurve.from_rows(rows), start, end)


def running_mean(values: Sequence[float]) -> list[float]:
    """Each value with up to four before it, averaged."""
    chunks = (values[max(0, i - SMOOTHING_STEPS + 1) : i + 1] for i in range(len(values)))
    return [sum(chunk) / len(chunk) for chunk in chunks]


def draw_curve(path: Path, *, title: str, curve: TrainingCurve, heldout: Sequence[tuple[int, Proportion]]) -> None:
    """Training success by step, held-out success with its intervals, and the entropy of sampled tokens in a thin panel below."""
    figure, axes, below = _success_over_entropy() if curve.entropy else _success_alone()
    last = max([*curve.steps, *(step for step, _ in heldout), 1])
    if curve.steps:
        axes.plot(curve.steps, curve.success, color=_THIN, linewidth=1, label="training tasks, each step")
        axes.plot(
            curve.steps, running_mean(curve.success), color=_THICK, linewidth=2, label=f"training tasks, mean of {SMOOTHING_STEPS} steps"
        )
    _mark_heldout(axes, heldout, last=last)
    axes.set(ylabel="success at temperature 1", ylim=(-0.02, 1.05), title=title)
    axes.set_xlim(-0.02 * last, 1.03 * last)
    whole_steps(axes)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", frameon=False, fontsize="small")
    if below is not None:
        below.plot(curve.steps, curve.entropy, color=_ENTROPY, linewidth=1)
        below.set(ylabel="entropy\n(nats)", ylim=(0, 1.1 * max(*curve.entropy, 1e-6)))
        below.grid(alpha=0.3)
    (axes if below is None else below).set_xlabel("optimiser steps after the cold start")
    save(figure, path)


def draw_arms(path: Path, arms: Mapping[str, Sequence[ArmRun]]) -> None:
    """Several arms: training success (thin: each seed, thick: their mean), and beside it held-out success before and after, by seed."""
    figure, (left, right) = pyplot().subplots(
        1, 2, figsize=(10, 4.5), dpi=_DPI, sharey=True, width_ratios=(3, 2), layout="constrained"
    )  # fmt: skip
    for number, (label, runs) in enumerate(arms.items()):
        colour = _ARM_COLOURS[number % len(_ARM_COLOURS)]
        for run in runs:
            left.plot(run.curve.steps, running_mean(run.curve.success), color=colour, linewidth=0.8, alpha=0.5)
        steps, mean = _mean_of_seeds([run.curve for run in runs])
        left.plot(steps, running_mean(mean), color=colour, linewidth=2.2, label=f"{label} ({len(runs)} seed{'s' * (len(runs) != 1)})")
        _draw_before_and_after(right, runs, place=number, colour=colour)
    left.set(xlabel="optimiser steps after the cold start", ylabel="success at temperature 1", ylim=(-0.02, 1.05))
    left.set_title(f"training tasks, mean of {SMOOTHING_STEPS} steps", fontsize="medium")
    left.legend(loc="best", frameon=False, fontsize="small")
    right.set_title("held-out tasks: ○ before, ● after, 95% interval", fontsize="medium")
    right.set_xticks(range(len(arms)), list(arms), rotation=20, ha="right")
    right.set_xlim(-0.6, len(arms) - 0.4)
    whole_steps(left)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    save(figure, path)


def _mean_of_seeds(curves: Sequence[TrainingCurve]) -> tuple[list[int], list[float]]:
    """Over the steps that all seeds have."""
    shared = sorted(set.intersection(*(set(curve.steps) for curve in curves)))
    by_step = [dict(zip(curve.steps, curve.success, strict=True)) for curve in curves]
    return shared, [sum(values[step] for values in by_step) / len(by_step) for step in shared]


def _draw_before_and_after(axes: Axes, runs: Sequence[ArmRun], *, place: int, colour: str) -> None:
    for number, run in enumerate(runs):
        x = place + 0.16 * (number - (len(runs) - 1) / 2)
        if run.start is not None:
            axes.plot([x, x], [run.start.value, run.end.value], color=colour, linewidth=0.8, alpha=0.4)
            axes.plot([x], [run.start.value], "o", markerfacecolor="white", color=colour, markersize=5)
        axes.errorbar([x], [run.end.value], yerr=_errors([run.end]), fmt="o", color=colour, markersize=5, capsize=3)


def _mark_heldout(axes: Axes, heldout: Sequence[tuple[int, Proportion]], *, last: int) -> None:
    rates = [rate for _, rate in heldout]
    axes.errorbar(
        [step for step, _ in heldout],
        [rate.value for rate in rates],
        yerr=_errors(rates),
        fmt="o",
        color=_HELDOUT,
        capsize=4,
        label=f"held-out tasks (n = {rates[-1].n}, 95% interval)" if rates else None,
        zorder=3,
    )
    for step, rate in heldout:
        is_left = step < last / 2
        axes.annotate(f"{rate.value:.3f}", (step, rate.value), xytext=(8 if is_left else -8, 6), textcoords="offset points",
                      ha="left" if is_left else "right", color=_HELDOUT, fontweight="bold")  # fmt: skip


def whole_steps(axes: Axes) -> None:
    """Ticks at whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _errors(rates: Sequence[Proportion]) -> list[list[float]]:
    return [[rate.value - rate.low for rate in rates], [rate.high - rate.value for rate in rates]]


def _success_alone() -> tuple[Figure, Axes, None]:
    figure, axes = pyplot().subplots(figsize=(8, 4.5), dpi=_DPI, layout="constrained")
    return figure, axes, None


def _success_over_entropy() -> tuple[Figure, Axes, Axes]:
    figure, (axes, below) = pyplot().subplots(
        2, 1, figsize=(8, 5.5), dpi=_DPI, sharex=True, height_ratios=(4, 1), layout="constrained"
    )  # fmt: skip
    return figure, axes, below


def pyplot() -> Any:
    """matplotlib's, without a window."""
    import matplotlib  # half a second of import, needed once at the end of a run

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save(figure: Figure, path: Path) -> None:
    """Writes the picture and frees it."""
    figure.savefig(path)
    pyplot().close(figure)
