"""What a run's evaluations took on the virtual clock, and how many turns called tools side by side. Owns the table; the clock is episodes'.

python -m tools.call_times RUN_DIR ...
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from trunkline.episodes.virtual_clock import completion_time, latencies
from trunkline.errors import TrunklineError
from trunkline.evals.heldout import succeeded
from trunkline.evals.statistics import Proportion, proportion
from trunkline.pool.journal_reader import JournalReader
from trunkline.run.recipe import Recipe, load_recipe
from trunkline.tasks.catalog import load_taskset
from trunkline.types import Episode


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 printed, 2 if a run cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m tools.call_times", description="Evaluations on the virtual clock.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="a run whose evaluations are measured")
    try:
        for run in parser.parse_args(arguments).runs:
            for name, episodes in _evaluations(run).items():
                print(f"{run.name} {name}: {_line(episodes, load_recipe(run / 'recipe.toml'))}")
    except TrunklineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _evaluations(run: Path) -> dict[str, list[Episode]]:
    """Judged episodes by evaluation, such as 'heldout.start'."""
    found: dict[str, list[Episode]] = defaultdict(list)
    with JournalReader.open(run / "journal.sqlite") as journal:
        for episode in journal.episodes():
            name, _, rest = episode.group_id.rpartition("-")
            if name.startswith("heldout") and rest.isdigit() and episode.status != "failed":
                found[name].append(episode)
    return found


def _line(episodes: list[Episode], recipe: Recipe) -> str:
    taskset = load_taskset(recipe.taskset.name, recipe.taskset.options)
    tool_s = latencies(taskset.open(taskset.task("heldout", 0)).tools.specs)
    per_token = recipe.rewards.seconds_per_token
    won = [episode for episode in episodes if succeeded(episode)]
    times = [completion_time(one.completions, one.messages, tool_s=tool_s, seconds_per_token=per_token) for one in won]
    calls = [len(one.messages[call.reply_node].message.tool_calls) for one in won for call in one.completions]
    turns = [num for num in calls if num]
    spread = 1.96 * statistics.stdev(times) / len(times) ** 0.5 if len(times) > 1 else float("nan")
    parallel = proportion(sum(num > 1 for num in turns), len(turns)) if turns else None
    success = proportion(len(won), len(episodes))
    mean = statistics.fmean(times) if times else float("nan")
    tokens = statistics.fmean(sum(call.num_sampled for call in one.completions) for one in won) if won else float("nan")
    return (
        f"success {_rate(success)}; of successes: {mean:.3f} s ± {spread:.3f}, {tokens:.1f} tokens sampled, "
        f"turns that call tools side by side {_rate(parallel) if parallel else 'none'}"
    )


def _rate(rate: Proportion) -> str:
    return f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}] (n = {rate.n})"


if __name__ == "__main__":
    sys.exit(main())
