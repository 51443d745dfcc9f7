"""The table of `trunkline bench overlap`: distributions over steps, tasks and kinds, and timed steps. Owns the statistics."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from trunkline.bench.overlap.recorded import Recorded, Sharing, flop_ratio_of, model_of, trained_groups
from trunkline.bench.result import Result, Row
from trunkline.bench.tree.measure import Bench, Setting, Timed, best_micro_batch, race
from trunkline.bench.tree.workloads import Sequences, Workload
from trunkline.errors import ConfigError
from trunkline.models.config import DecoderConfig
from trunkline.pool.journal_reader import JournalReader

Progress = Callable[[str, int, int], None]
_STATISTICS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "min": min,
    "p10": lambda values: float(np.percentile(values, 10)),
    "median": lambda values: float(np.median(values)),
    "p90": lambda values: float(np.percentile(values, 90)),
    "max": max,
    "mean": lambda values: float(np.mean(values)),
}


@dataclass(frozen=True)
class OverlapBenchPlan:
    """What is looked at."""

    run_dir: Path
    """A run, finished, going on or crashed."""
    num_timed: int = 5
    """Steps, evenly spaced, whose forward and backward are timed as well; 0: none."""
    num_rounds: int = 5
    """Interleaved runs of each form of a timed step."""


class OverlapResult(Result):
    """A line for each distribution, where other results have one for each number."""

    def table(self) -> Table:
        """For the terminal: a section for each set of steps or tasks."""
        table = Table(title=self.title, title_justify="left", box=None)
        for column in ("", *_STATISTICS):
            table.add_column(column, justify="right" if column else "left", no_wrap=True)
        lines: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for row in self.rows:
            lines[row.row][row.metric] = row.value
        section = ""
        for name, line in lines.items():
            sharers, _, measure = name.rpartition(": ")
            if sharers != section:
                table.add_row(f"{sharers}, {line['n']:.0f}", style="bold")
            section = sharers
            table.add_row(
                f"  {measure}", *(f"{line[metric]:,.0f}" if line["max"] >= 1000 else f"{line[metric]:.2f}" for metric in _STATISTICS)
            )
        return table


def bench_overlap(plan: OverlapBenchPlan, progress: Progress) -> Result:
    """Reads the whole run and times some of its steps. Raises ConfigError if it is no run, or nothing was trained in it."""
    config = model_of(plan.run_dir)
    flops = flop_ratio_of(config)
    with JournalReader.open(plan.run_dir / "journal.sqlite") as journal:
        steps = trained_groups(journal)
        if not steps:
            raise ConfigError(f"no step of RL is on record in {plan.run_dir}; a run that trains by RL has them, after its cold start")
        chosen = {list(steps)[place] for place in np.linspace(0, len(steps) - 1, min(plan.num_timed, len(steps))).round().astype(int)}
        by_step: list[Sharing] = []
        by_kind: defaultdict[str, list[Sharing]] = defaultdict(list)
        to_time: list[tuple[Recorded, Sharing]] = []
        for done, (step, group_ids) in enumerate(steps.items()):
            progress("steps", done, len(steps))
            groups = [journal.read_group(group_id) for group_id in group_ids]
            recorded = Recorded.of(groups)
            by_step.append(recorded.sharing(flops))
            for group in groups:
                by_kind[group.task.kind].append(Recorded.of([group]).sharing(flops))
            if step in chosen:
                to_time.append((recorded, by_step[-1]))
        progress("steps", len(steps), len(steps))
    with _one_thread():
        timed = list(_timed(to_time, config, num_rounds=plan.num_rounds, progress=progress))
    return _result(plan, by_step, by_kind, timed)


@dataclass(frozen=True)
class _Timed:
    """One step by the clock."""

    sharing: Sharing
    """What could be saved."""
    calls: float
    """CPU-seconds of forward and backward of the calls, over the forest's."""
    trajectories: float
    """Of the trajectories, over the forest's."""


def _timed(steps: Sequence[tuple[Recorded, Sharing]], config: DecoderConfig, *, num_rounds: int, progress: Progress) -> Iterator[_Timed]:
    """At random weights; the flat forms in the micro-batches that are best on the middle one of the steps."""
    if not steps:
        return
    setting = Setting(torch.device("cpu"), num_rounds=num_rounds)
    middle = _bench(steps[len(steps) // 2][0], config, setting)
    calls_size, whole_size = (next(iter(best_micro_batch(middle, part, _ignore))) for part in (middle.calls, middle.trajectories))
    for done, (recorded, sharing) in enumerate(steps):
        progress("timed steps", done, len(steps))
        bench = _bench(recorded, config, setting)
        flat = (_flat(bench, bench.calls, calls_size), _flat(bench, bench.trajectories, whole_size))
        contenders = [Timed("forest", bench.run_forest), *flat]
        race(bench, contenders, _ignore)
        forest, calls, trajectories = (contender.median for contender in contenders)
        yield _Timed(sharing, calls / forest, trajectories / forest)
    progress("timed steps", len(steps), len(steps))


def _bench(recorded: Recorded, config: DecoderConfig, setting: Setting) -> Bench:
    return Bench(Workload("step", "of a run", config, lambda: (recorded.calls, recorded.trajectories), least_fraction=0.0), setting)


def _flat(bench: Bench, sequences: Sequences, micro_batch: int) -> Timed:
    batches = bench.flat_batches(sequences, micro_batch)
    return Timed("flat", lambda: bench.run_flat(batches))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _result(
    plan: OverlapBenchPlan, by_step: Sequence[Sharing], by_kind: Mapping[str, Sequence[Sharing]], timed: Sequence[_Timed]
) -> Result:
    by_task = [sharing for kind in by_kind.values() for sharing in kind]
    found = {f"steps: {name}": values for name, values in {**_tokens(by_step), **_ratios(by_step)}.items()}
    for sharers, sharings in {"tasks": by_task, **{f"tasks of {kind}": by_kind[kind] for kind in sorted(by_kind)}}.items():
        found |= {f"{sharers}: {name}": values for name, values in _ratios(sharings).items()}
    if timed:
        found |= {f"timed steps: {name}": values for name, values in _speed_ups(timed).items()}
    rows = [row for name, values in found.items() for row in _distribution(name, values)]
    plotted = {f"{sharers}: {name}" for sharers in ("steps", "tasks", "timed steps") for name in ("FLOP ratio", "speed-up")}
    samples = {name: values for name, values in found.items() if name.partition(", ")[0] in plotted}
    return OverlapResult(f"What samples shared in {plan.run_dir.name}", tuple(rows), samples, "x")


def _tokens(sharings: Sequence[Sharing]) -> dict[str, Sequence[float]]:
    return {
        "tokens, calls": [one.num_call_tokens for one in sharings],
        "tokens, trajectories": [one.num_trajectory_tokens for one in sharings],
        "tokens, forest": [one.num_forest_tokens for one in sharings],
    }


def _ratios(sharings: Sequence[Sharing]) -> dict[str, Sequence[float]]:
    return {
        "token ratio, calls": [one.num_call_tokens / one.num_forest_tokens for one in sharings],
        "token ratio, trajectories": [one.num_trajectory_tokens / one.num_forest_tokens for one in sharings],
        "FLOP ratio, calls": [one.call_flop_ratio for one in sharings],
        "FLOP ratio, trajectories": [one.trajectory_flop_ratio for one in sharings],
    }


def _speed_ups(timed: Sequence[_Timed]) -> dict[str, Sequence[float]]:
    """The fraction is speed-up over FLOP ratio."""
    return {
        "speed-up, calls": [one.calls for one in timed],
        "fraction, calls": [one.calls / one.sharing.call_flop_ratio for one in timed],
        "speed-up, trajectories": [one.trajectories for one in timed],
        "fraction, trajectories": [one.trajectories / one.sharing.trajectory_flop_ratio for one in timed],
    }


def _distribution(name: str, values: Sequence[float]) -> list[Row]:
    unit = "tokens" if ": tokens" in name else "x"
    return [Row(name, "n", len(values), ""), *(Row(name, metric, float(of(values)), unit) for metric, of in _STATISTICS.items())]


def _ignore(what: str) -> None:
    """Progress within a step is not shown."""
