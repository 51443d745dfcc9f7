"""`trunkline show`: a run as text, finished, going on or crashed. Owns what is printed and its order; reads only what the run wrote.

curve ─► evaluations ─► steps ─► where the sampled tokens went ─► best and worst trained episode of the newest step
"""

from __future__ import annotations

import io
import json
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.table import Table

from trunkline.errors import ConfigError
from trunkline.metrics.jsonl import newest_rows, read_metrics
from trunkline.models.tokenizer import TOKENIZER_FILE, Tokenizer
from trunkline.pool.journal_reader import JournalReader
from trunkline.run.credit import CreditBook
from trunkline.run.curve import TrainingCurve, running_mean
from trunkline.run.show_episode import legend, plain, print_episode, print_readable
from trunkline.run.terminal_curve import Signs, curve_lines
from trunkline.types import Episode

_WIDEST_CURVE = 100
_SHOWN_STEPS = 10


@dataclass(frozen=True)
class RunFiles:
    """What a run directory holds, as far as it is written."""

    path: Path
    """The run directory."""
    recipe: Mapping[str, Any]
    """The resolved recipe."""
    rows: Sequence[Mapping[str, Any]]
    """metrics.jsonl; empty if the run did not come that far, or trained nothing."""
    summary: Mapping[str, Any] | None
    """summary.json; None if the run did not end, or not well."""

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        """Raises ConfigError if `run_dir` is no run directory, InfraError if a row of metrics.jsonl cannot be read."""
        try:
            recipe = tomllib.loads((run_dir / "recipe.toml").read_text(encoding="utf-8"))
            summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8")) if (run_dir / "summary.json").exists() else None
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read the run in {run_dir} ({error}); give a run directory, such as runs/quickstart-seed1") from None
        metrics = run_dir / "metrics.jsonl"
        return cls(run_dir, recipe, read_metrics(metrics) if metrics.exists() else [], summary)

    @property
    def steps(self) -> list[Mapping[str, Any]]:
        """Rows of RL steps in order; of a step that was done again after a resume the last."""
        return newest_rows(self.rows, "rl", by="step")

    @property
    def resumes(self) -> list[Mapping[str, Any]]:
        """Rows of kind 'resume', one for each time that the run was taken up again."""
        return [row for row in self.rows if row["kind"] == "resume"]

    @property
    def evaluations(self) -> dict[str, Mapping[str, Any]]:
        """Rates by name, such as 'start' and 'end.greedy', with `kinds` by task kind."""
        found = {row["name"]: row for row in self.rows if row["kind"] == "evaluation"}
        for name, rates in (self.summary or {}).get("evaluations", {}).items():
            found.setdefault(name, {**rates, "kinds": {kind: rate["value"] for kind, rate in rates["by_kind"].items()}})
        return found

    def tokenizer(self) -> Tokenizer | None:
        """The run's own; None if no checkpoint has one."""
        candidates = [*sorted((self.path / "checkpoints").glob("*")), Path(self.recipe.get("model", {}).get("path") or self.path)]
        folder = next((folder for folder in candidates if (folder / TOKENIZER_FILE).exists()), None)
        return None if folder is None else Tokenizer.load(folder)


def show_run(run_dir: Path, out: Console) -> None:
    """Prints all that there is of a run. Raises ConfigError if `run_dir` is none."""
    print_what_can_be_encoded(out)
    run = RunFiles.read(run_dir)
    _say(_headline(run), out)
    _print_curve(run, out)
    _print_evaluations(run, out)
    _print_steps(run.steps, out)
    _print_tokens(run, out)
    _print_extremes(run, out)


def show_episode(run_dir: Path, episode_id: str, out: Console) -> None:
    """Prints one episode. Raises ConfigError if neither the journal nor a file under episodes/ has it."""
    print_what_can_be_encoded(out)
    run = RunFiles.read(run_dir)
    with _journal(run_dir) as journal:
        if journal is None:
            print_readable(_find(run_dir, episode_id), out)
            return
        episode = read_episode(journal, episode_id, run_dir)
        out.print(legend(out), soft_wrap=True)
        print_episode(episode, CreditBook(journal, run.recipe).credit(episode), run.tokenizer(), out)


def read_episode(journal: JournalReader, episode_id: str, run_dir: Path) -> Episode:
    """An episode of a run. Raises ConfigError that says where its ids are, if it is not on record."""
    try:
        return journal.read_episode(episode_id)
    except ConfigError:
        raise ConfigError(
            f"no ended episode {episode_id!r} is on record in {run_dir}; episodes/*.jsonl has their ids, such as g000012-a03"
        ) from None


def _headline(run: RunFiles) -> str:
    recipe, summary = run.recipe, run.summary
    method = summary["method"] if summary else recipe.get("stage", {}).get("method", "rl")
    resumed = f" · resumed {len(run.resumes)}×" if run.resumes else ""
    title = f"{recipe.get('name', 'run')} · {method} · seed {recipe.get('seed', '?')}{resumed}"
    if summary is None:
        if not run.rows:
            return f"{title} · not finished, nothing measured yet"
        return f"{title} · not finished: the newest row is {max(0, time.time() - run.rows[-1]['time']):.0f} s old"
    return (
        f"{title} · finished {summary['finished_at']}\n"
        f"{summary['rl_steps']} RL steps, {summary['cpu_seconds']:.0f} CPU-s counted, {summary['evaluation_cpu_seconds']:.0f} CPU-s of "
        f"evaluation, {summary['wall_seconds']:.0f} s, peak memory {summary['peak_rss_bytes'] / 2**20:.0f} MiB"
    )


def _print_curve(run: RunFiles, out: Console) -> None:
    curve = TrainingCurve.from_rows(run.rows)
    if not curve.steps:
        return
    evaluations = run.evaluations
    places = {"start": 0, "end": curve.steps[-1]}
    marks = [(places[name], evaluations[name]["value"]) for name in places if name in evaluations]
    signs, width = Signs.for_encoding(out.encoding), min(out.width, _WIDEST_CURVE)
    held_out = f"; {signs.mark} held-out success" if marks else ""
    _say(f"\nsuccess on training tasks over steps, mean of 5{held_out}", out)
    _say("\n".join(curve_lines(list(zip(curve.steps, running_mean(curve.success), strict=True)), marks, width=width, signs=signs)), out)
    if curve.reward != curve.success:
        _say("\nmean reward over steps, mean of 5", out)
        _say("\n".join(curve_lines(list(zip(curve.steps, running_mean(curve.reward), strict=True)), [], width=width, signs=signs)), out)


def _print_evaluations(run: RunFiles, out: Console) -> None:
    if not run.evaluations:
        return
    table = _table("evaluation", "success", "95% interval", "n", "by kind")
    for name, rates in run.evaluations.items():
        kinds = "  ".join(f"{kind} {value:.2f}" for kind, value in rates["kinds"].items())
        table.add_row(name, f"{rates['value']:.3f}", f"{rates['low']:.3f} .. {rates['high']:.3f}", str(rates["n"]), kinds)
    out.print()
    out.print(table)


# Heading, key of the row, format; in the order in which a narrow output keeps them.
_COLUMNS = (
    ("step", "step", "d"),
    ("reward", "reward", ".3f"),
    ("success", "success", ".3f"),
    ("entropy", "entropy", ".3f"),
    ("age", "age_mean", ".1f"),
    ("merged", "merged_token_ratio", ".1f"),
    ("gap", "sampler_trainer_gap", ".0e"),
    ("clip", "clip_fraction", ".3f"),
    ("tokens", "sampled_tokens", ",d"),
    ("seconds", "step_seconds", ".1f"),
)


def _print_steps(steps: Sequence[Mapping[str, Any]], out: Console) -> None:
    if not steps:
        return
    cells = [[heading, *(_cell(row, key, form) for row in _evenly(steps))] for heading, key, form in _COLUMNS]
    widths = [max(map(len, column)) + 2 for column in cells]
    fitting = [column for number, column in enumerate(cells) if sum(widths[: number + 1]) <= out.width]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in fitting:
        table.add_column(column[0], justify="right", no_wrap=True)
    for row in list(zip(*fitting, strict=True))[1:]:
        table.add_row(*row)
    out.print()
    out.print(table)


def _cell(row: Mapping[str, Any], key: str, form: str) -> str:
    return format(row[key], form) if key in row else "-"


def _evenly(steps: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Ten rows at most, the first and the last among them."""
    num = min(_SHOWN_STEPS, len(steps))
    return [steps[round(i * (len(steps) - 1) / max(1, num - 1))] for i in range(num)]


def _print_tokens(run: RunFiles, out: Console) -> None:
    """Where every token went that was sampled for the steps, or lost with a process that was killed."""
    steps, killed = run.steps, sum(row["killed_tokens"] for row in run.resumes)
    sampled = killed + sum(row["sampled_tokens"] for row in steps)
    if not sampled:
        return
    dropped: Counter[str] = Counter()
    for row in steps:
        dropped.update(row["dropped_tokens"])
    table = _table("sampled tokens", "number", "share")
    fates = [("trained", sum(row["trained_tokens"] for row in steps)), *((f"dropped: {why}", num) for why, num in dropped.most_common())]
    if killed:
        fates.append(("dropped: its run was killed", killed))
    for fate, number in fates:
        table.add_row(fate, f"{number:,}", f"{number / sampled:.1%}")
    table.add_row("all", f"{sampled:,}", "")
    out.print()
    out.print(table)


def _print_extremes(run: RunFiles, out: Console) -> None:
    with _journal(run.path) as journal:
        if journal is None:
            return
        trained = CreditBook(journal, run.recipe).newest_step()
        if not trained:
            return
        tokenizer = run.tokenizer()
        for title, found in (("best", trained[0]), ("worst", trained[-1])):
            _say(f"\n{title} episode of step {found.credit.step}, the newest trained, by advantage", out)
            print_episode(found.episode, found.credit, tokenizer, out)
        out.print(legend(out), soft_wrap=True)


@contextmanager
def _journal(run_dir: Path) -> Iterator[JournalReader | None]:
    path = run_dir / "journal.sqlite"
    if not path.exists():
        yield None
        return
    with JournalReader.open(path) as journal:
        yield journal


def _find(run_dir: Path, episode_id: str) -> dict[str, Any]:
    files = sorted((run_dir / "episodes").glob("*.jsonl"))
    if not files:
        raise ConfigError(f"{run_dir} has neither journal.sqlite nor episodes/*.jsonl; did the run sample anything?")
    wanted = json.dumps(episode_id)
    for path in files:
        with path.open(encoding="utf-8") as file:
            for line in file:
                if wanted in line:
                    episode: dict[str, Any] = json.loads(line)
                    if episode["episode_id"] == episode_id:
                        return episode
    raise ConfigError(f"no episode {episode_id!r} under {run_dir / 'episodes'}; ids look like g000012-a03")


def print_what_can_be_encoded(out: Console) -> None:
    """On an output without UTF, names of a task that it does not know come out as question marks, not as an error."""
    if isinstance(out.file, io.TextIOWrapper):
        out.file.reconfigure(errors="replace")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in ("success", "n", "number", "share") else "left", overflow="fold")
    return table


def _say(text: str, out: Console) -> None:
    out.print(plain(text, out, indent=""), highlight=False, soft_wrap=True)
