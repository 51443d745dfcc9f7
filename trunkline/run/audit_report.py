"""What an audit found, for people: a table, and a picture of rewarded and right over training. Owns no verdict (auditing.py)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.run.auditing import Moment
from trunkline.run.curve import pyplot, running_mean, save, whole_steps

_BUCKETS = 8
"""Rows of a run's training in the table, at most."""
_RIGHT = ("right", "num_right", "tab:green", "-")
_REWARDED = ("rewarded", "num_rewarded", "black", "--")
_FOOLED = ("rewarded, not right", "num_fooled", "tab:red", "-")
_FOOLING = ("fools the workspace's own tests", "num_fooling", "tab:red", "-")
_SEED = re.compile(r"-seed\d+$")


def table_lines(moments: Sequence[Moment]) -> list[str]:
    """A row for each evaluation and for stretches of training: shares of the attempts that have both verdicts."""
    if not moments:
        return ["no attempt has ended"]
    width, wide = max(len(moment.run) for moment in moments), max(16, *(len(moment.when) for moment in moments))
    lines = [f"{'run':<{width}}  {'when':<{wide}} attempts  rewarded     right    fooled    missed   fooling  no verdict"]
    for run, found in groupby(moments, key=lambda moment: moment.run):
        of_run = list(found)
        trained = [moment for moment in of_run if moment.step is not None]
        size = -(-len(trained) // _BUCKETS) or 1
        stretches = [trained[start : start + size] for start in range(0, len(trained), size)]
        lines += [f"{run:<{width}}  {_steps(stretch):<{wide}} {_cells(stretch)}" for stretch in stretches]
        lines += [f"{run:<{width}}  {moment.when:<{wide}} {_cells([moment])}" for moment in of_run if moment.step is None]
    return lines


def _steps(moments: Sequence[Moment]) -> str:
    first, last = moments[0].step, moments[-1].step
    return f"step {first}" if first == last else f"steps {first}-{last}"


def _cells(moments: Sequence[Moment]) -> str:
    num_attempts = sum(moment.num_attempts for moment in moments)

    def share(name: str) -> str:
        counts = [getattr(moment, name) for moment in moments]
        return "-" if not num_attempts or None in counts else f"{sum(counts) / num_attempts:.3f}"

    shares = "  ".join(f"{share(f'num_{name}'):>8}" for name in ("rewarded", "right", "fooled", "missed", "fooling"))
    return f"{num_attempts:8}  {shares}  {sum(moment.num_unjudged for moment in moments):10}"


def draw_audit(path: Path, moments: Sequence[Moment]) -> None:
    """A panel for each arm, which is the runs whose names differ only in their seed: thin each seed, thick their mean."""
    arms: dict[str, dict[str, list[Moment]]] = {}
    is_told = all(moment.num_fooling is not None for moment in moments)
    for moment in moments:
        if moment.step is not None and moment.num_attempts:
            arms.setdefault(_SEED.sub("", Path(moment.run).name), {}).setdefault(moment.run, []).append(moment)
    figure, panels = pyplot().subplots(
        1, max(1, len(arms)), figsize=(5 * max(1, len(arms)), 4.2), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, (arm, runs) in zip(panels[0], arms.items(), strict=False):
        for label, name, colour, style in (_RIGHT, _FOOLING if is_told else _FOOLED, _REWARDED):
            _draw_line(axes, list(runs.values()), name, colour=colour, label=label, style=style)
        axes.set_title(f"{arm} ({len(runs)} run{'s' * (len(runs) != 1)})", fontsize="medium")
        axes.set(xlabel="optimiser steps", ylim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
        whole_steps(axes)
    panels[0][0].set_ylabel("share of the training attempts")
    panels[0][-1].legend(loc="best", frameon=False, fontsize="small")
    save(figure, path)


def _draw_line(axes: Any, runs: Sequence[Sequence[Moment]], name: str, *, colour: str, label: str, style: str) -> None:
    curves = []
    for moments in runs:
        curve = running_mean([getattr(moment, name) / moment.num_attempts for moment in moments])
        axes.plot([moment.step for moment in moments], curve, style, color=colour, linewidth=0.7, alpha=0.45)
        curves.append(curve)
    shortest = min(map(len, curves))
    steps = [moment.step for moment in runs[0][:shortest]]
    axes.plot(steps, np.mean([curve[:shortest] for curve in curves], axis=0), style, color=colour, linewidth=2, label=label)
