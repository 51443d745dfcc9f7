"""`trunkline doctor`: a diagnosis as a table, or as JSON. Owns the printing; what is found is evals/doctor.py's."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trunkline.evals.doctor import Diagnosis, diagnose
from trunkline.evals.finding import Finding, Verdict
from trunkline.run.rebuild_check import check_rebuilt

_STYLES: dict[Verdict, str] = {"fault": "bold red", "warning": "yellow", "ok": "green", "not measured": "dim"}


def examine(run_dir: Path, out: Console, *, as_json: bool) -> None:
    """Prints what keeps the run from learning. Raises InfraError if the run cannot be read."""
    diagnosis = diagnose(run_dir, first=[check_rebuilt(run_dir)])
    if as_json:
        answer = json.dumps({"run_dir": str(run_dir), **diagnosis.as_dict()}, indent=2)
        out.print(answer, markup=False, highlight=False, soft_wrap=True)
        return
    state = "finished" if diagnosis.is_finished else "not finished: it goes on, or ended before its time"
    out.print(f"{run_dir}: {diagnosis.num_steps} RL steps, {state}", markup=False, highlight=False, soft_wrap=True)
    out.print(_table(diagnosis))
    out.print(diagnosis.most_likely_cause, markup=False, highlight=False, soft_wrap=True)


def _table(diagnosis: Diagnosis) -> Table:
    table = Table.grid("verdict", "check", "found", padding=(0, 2, 0, 0))
    for finding in diagnosis.findings:
        style = _STYLES[finding.verdict]
        table.add_row(Text(finding.verdict, style=style, no_wrap=True), Text(finding.check, no_wrap=True), _found(finding))
    return table


def _found(finding: Finding) -> Text:
    """The number and the threshold; of a trouble, on lines of their own, also what to do."""
    if not finding.is_trouble:
        return Text.assemble(finding.measured, (f" ({finding.threshold})", "dim"))
    return Text.assemble((finding.measured, "bold"), (f"\n{finding.threshold}", "dim"), f"\n→ {finding.remedy}")
