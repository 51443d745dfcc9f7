"""curve.png of a run: success over optimiser steps. Owns the picture; the numbers come from metrics.jsonl and the evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trunkline.evals.heldout import Evaluation

_SMOOTHING_STEPS = 5


def draw_curve(path: Path, *, title: str, steps: Sequence[int], rewards: Sequence[float], start: Evaluation, end: Evaluation) -> None:
    """Training success by step (thin: each step, thick: running mean of 5) and held-out success before and after with intervals."""
    import matplotlib  # half a second of import, needed once at the end of a run

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=120)
    last = steps[-1] if steps else 1
    if steps:
        axes.plot(steps, rewards, color="#9db8d9", linewidth=1, label="training tasks, each step")
        smooth = [sum(rewards[max(0, i - _SMOOTHING_STEPS + 1) : i + 1]) / min(i + 1, _SMOOTHING_STEPS) for i in range(len(rewards))]
        axes.plot(steps, smooth, color="#1f4e8c", linewidth=2, label=f"training tasks, mean of {_SMOOTHING_STEPS}")
    points = [(0, start.success), (last, end.success)]
    axes.errorbar(
        [x for x, _ in points],
        [rate.value for _, rate in points],
        yerr=[[rate.value - rate.low for _, rate in points], [rate.high - rate.value for _, rate in points]],
        fmt="o",
        color="#c0392b",
        capsize=4,
        label=f"held-out tasks (n = {end.success.n}, 95% interval)",
        zorder=3,
    )
    for x, rate in points:
        axes.annotate(f"{rate.value:.3f}", (x, rate.value), xytext=(8 if x == 0 else -8, 10), textcoords="offset points",
                      ha="left" if x == 0 else "right", color="#c0392b", fontweight="bold")  # fmt: skip
    axes.set(xlabel="optimiser steps after the cold start", ylabel="success at temperature 1", ylim=(0, 1.02), title=title)
    axes.set_xlim(-0.02 * last, 1.03 * last)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
