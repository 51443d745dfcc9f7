"""Short real runs to look at, and what one looks at them with. Owns their recipe; checks nothing."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from tests.in_process import trunkline
from trunkline.run.show import show_episode, show_run

ROOT = Path(__file__).parents[2]
# One kind of question over short real names: a minute-sized cold start earns about .5, so that groups differ.
SMALL = [
    'taskset.options={kinds={"one_hop.area"=1},invented_share=0.0}',
    "taskset.harder_splits=[]",
    "evaluation.episodes=4",
    "evaluation.greedy=false",
    "pool.group_size=4",
    "pool.window.groups_per_step=2",
]
COLD_START = ["cold_start.steps=300", "cold_start.batch_size=6", "cold_start.decision_noise=0.0"]


# What the doctor calls healthy needs groups of 8; the rest does not mind.
HEALTHY = [*COLD_START, "pool.group_size=8", "pool.window.groups_per_step=4", "stage.steps=3", 'metrics.writers=["tensorboard"]']


def train(run_dir: Path, *overrides: str) -> Path:
    """A run to its end."""
    trunkline("train", str(ROOT / "recipes" / "quickstart.toml"), f"run_dir={run_dir}", *SMALL, *overrides)
    return run_dir


def resume(run_dir: Path, *overrides: str) -> None:
    """Goes on with it."""
    trunkline("train", f"resume={run_dir}", *overrides)


def show(run_dir: Path, episode: str | None = None, *, width: int = 100, colours: bool = False) -> str:
    """What `trunkline show` prints."""
    file = io.StringIO()
    out = Console(file=file, width=width, force_terminal=colours, color_system="standard" if colours else None, _environ={})
    if episode is None:
        show_run(run_dir, out)
    else:
        show_episode(run_dir, episode, out)
    return file.getvalue()


def documented() -> Iterator[tuple[str, str]]:
    """(kind of row, key) of every line of docs/02-metrics.md's tables of keys."""
    text = (ROOT / "docs" / "02-metrics.md").read_text(encoding="utf-8")
    kinds = re.findall(r"^\| `(\w+)` \|", text.partition("## Rows")[2].partition("## In every row")[0], re.MULTILINE)
    tables = text.partition("## In every row")[2]
    everywhere, _, others = tables.partition("## What attempts earned")
    yield from ((kind, key) for key in re.findall(r"^\| `(\w+)` \|", everywhere, re.MULTILINE) for kind in kinds)
    for key, rows in re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", others, re.MULTILINE):
        yield from ((kind, key) for kind in rows.split(", "))
