"""What earlier incarnations of a run left: their rows and whether its journal agrees with them. Owns the reading; restores nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.errors import ConfigError
from trunkline.evals.heldout import Evaluation
from trunkline.evals.statistics import Proportion, proportion
from trunkline.metrics.jsonl import read_metrics
from trunkline.pool.journal_reader import JournalReader
from trunkline.run.costs import Costs
from trunkline.run.directory import RunDirectory


@dataclass(frozen=True)
class RunHistory:
    """A run's past; the default is a run that only begins."""

    rows: Sequence[Mapping[str, Any]] = ()
    """metrics.jsonl as it was when this incarnation began."""
    newest_checkpoint: int = 0
    """Policy step of the last checkpoint on record; 0 without one."""
    is_resumed: bool = False
    """True if the run was started before."""

    @classmethod
    def read(cls, directory: RunDirectory) -> RunHistory:
        """Raises ConfigError if the journal is damaged, or lacks what metrics.jsonl says was recorded in it."""
        metrics = directory.path / "metrics.jsonl"
        rows = read_metrics(metrics) if metrics.exists() else []
        if not directory.journal.exists():
            _check(rows, directory, num_incarnations=0, last_step=0)
            return cls(rows, is_resumed=True)
        with JournalReader.open(directory.journal) as record:
            record.check()
            last_step = max((step for _, step, reason in record.consumed() if reason == "trained"), default=0)
            _check(rows, directory, num_incarnations=record.num_incarnations, last_step=last_step)
            return cls(rows, max((version.step for version, _ in record.checkpoints()), default=0), is_resumed=True)

    @property
    def costs(self) -> Costs:
        """What the run has cost up to the last row."""
        return Costs.of_rows(self.rows)

    @property
    def num_resumes(self) -> int:
        """How often it was resumed so far, as far as it came to sampling again."""
        return sum(row["kind"] == "resume" for row in self.rows)

    @property
    def first_unreported_incarnation(self) -> int:
        """Completions killed in earlier incarnations than this one are in a row of kind 'resume' already."""
        return max((row["incarnation"] for row in self.rows if row["kind"] == "resume"), default=1)

    def evaluation(self, name: str, *, step: int, num_episodes: int) -> Evaluation | None:
        """A finished evaluation of the policy at `step`, so that it is not paid for twice; None if there is none of this size."""
        for row in reversed(self.rows):
            if row["kind"] == "evaluation" and (row["name"], row.get("step")) == (name, step):
                return _evaluation_of(row) if row["n"] + row["num_failed"] == num_episodes else None
        return None


def evaluation_row(result: Evaluation, *, name: str, split: str, step: int) -> dict[str, Any]:
    """An evaluation of the policy at `step` as a row of metrics.jsonl, from which it can be read back."""
    return {
        "name": name,
        "split": split,
        "step": step,
        "num_failed": result.num_failed,
        **result.success.as_dict(),
        "kinds": {kind: rate.value for kind, rate in result.by_kind.items()},
        "num_by_kind": {kind: rate.n for kind, rate in result.by_kind.items()},
    }


def _evaluation_of(row: Mapping[str, Any]) -> Evaluation:
    """The inverse of evaluation_row, without episodes: they are in episodes/ and in the journal."""
    return Evaluation(
        name=f"heldout.{row['name']}",
        success=_proportion(row["value"], row["n"]),
        by_kind={kind: _proportion(value, row["num_by_kind"][kind]) for kind, value in row["kinds"].items()},
        num_failed=row["num_failed"],
        episodes=(),
    )


def _proportion(value: float, n: int) -> Proportion:
    return proportion(round(value * n), n)


def _check(rows: Sequence[Mapping[str, Any]], directory: RunDirectory, *, num_incarnations: int, last_step: int) -> None:
    """A journal cut at a record's end opens as if it were whole. Rows are written after what they tell of is in the journal."""
    told_incarnations = max((row.get("incarnation", 1) for row in rows if row["kind"] in ("evaluation", "rl", "resume")), default=0)
    told_step = max((row["step"] for row in rows if row["kind"] == "rl"), default=0)
    if told_incarnations > num_incarnations or told_step > last_step:
        raise ConfigError(
            f"{directory.journal} lost records: it knows {num_incarnations} starts and step {last_step}, metrics.jsonl beside it tells of "
            f"{told_incarnations} and {told_step}; restore the journal with its -wal file, or start a new run from a folder under "
            f"{directory.path / 'checkpoints'} (model.path=FOLDER cold_start.steps=0)"
        )
