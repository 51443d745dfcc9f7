"""Held-out inputs: fresh calls, answered by the solution in one sealed process and by the work in another; compared here. Owns no call.

    seed ─► solution's process: draws calls, observes them ─► calls, outcomes ─┐
                                                       work's process: observes the calls ─► outcomes ─► equal?

The calls are the task's own (tests/heldout.py), drawn anew for each verdict. To be paid here, the work's process has to compute the
right answers: what it says is compared, not believed. A task's heldout.py has two functions:

>>> def calls(rng):                          # plain data; random.Random(seed)
...     for _ in range(50):
...         yield rng.randrange(1000), rng.randrange(100)
>>> def observe(call):                       # imports the code, returns plain data; exceptions are told by their type
...     from shop import price
...     return price(*call)
"""

from __future__ import annotations

import datetime
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.errors import TaskError, VerifierError
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.task import CodeTask
from trunkline.types import Command, SealedResult, SealedRun

MAX_CALLS = 2000
_INSIDE = "/verdict/heldout.py"
_MAX_REPORT_BYTES = 2**24
_DAYS_AHEAD = (365, 3 * 365)
_NAME = re.compile(r"[A-Za-z_][\w.]{0,79}")


@dataclass(frozen=True)
class Observed:
    """What the solution does with the calls of one seed."""

    calls: tuple[Any, ...]
    """As programs/heldout_calls.py encodes them."""
    outcomes: tuple[str, ...]
    """Of each call, a line of JSON."""
    later: str
    """The clock that the second half of the calls ran by, ISO 8601."""

    @property
    def num_values(self) -> int:
        """Calls that returned something."""
        return sum(outcome.startswith('["value"') for outcome in self.outcomes)


async def heldout_mismatches(place: VerdictPlace, task: CodeTask, *, oracle_tree: Path, work_tree: Path, seed: int) -> list[str]:
    """How the work differs from the solution on the calls of this seed, in words without inputs or answers; [] if it does not.

    Raises:
        VerifierError: a process took too long or spent a limit.
        TaskError: the solution's own run is at fault.
    """
    observed = await observe_solution(place, task, tree=oracle_tree, seed=seed)
    return await compare_work(place, task, observed, tree=work_tree)


async def observe_solution(place: VerdictPlace, task: CodeTask, *, tree: Path, seed: int) -> Observed:
    """Draws the calls and observes the solution. Raises TaskError if that says nothing firm, VerifierError."""
    ahead = random.Random(f"clock {seed}").uniform(*_DAYS_AHEAD)
    later = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=ahead)).isoformat(timespec="seconds")
    settings = {"mode": "oracle", "seed": seed, "most": MAX_CALLS}
    result = await _run(place, task, tree, settings | {"later": later}, b"")
    report = _read(result)
    calls, outcomes = report.get("calls"), report.get("outcomes")
    where = f"{task.heldout} (seed {seed})"
    if not isinstance(calls, list) or not isinstance(outcomes, list) or len(calls) != len(outcomes):
        raise TaskError(f"{where}: the solution's run ended with status {result.command.status}: {report.get('complaint', 'no report')}")
    if not calls:
        raise TaskError(f"{where}: calls(rng) gave no call; give some dozens")
    for outcome in outcomes:
        if outcome.startswith('["fault"'):
            raise TaskError(f"{where}: observe(call) has to return plain data, it returned {json.loads(outcome)[1]}")
    observed = Observed(tuple(calls), tuple(outcomes), later)
    if not observed.num_values:
        raise TaskError(
            f"{where}: the solution raises on all {len(calls)} calls, first {json.loads(outcomes[0])[1]}; correct observe(call)"
        )
    return observed


async def compare_work(place: VerdictPlace, task: CodeTask, observed: Observed, *, tree: Path) -> list[str]:
    """The differences on these calls; [] if there are none. Raises VerifierError."""
    settings = {"mode": "work", "later": observed.later}
    result = await _run(place, task, tree, settings, json.dumps(observed.calls).encode())
    report = _read(result)
    outcomes = report.get("outcomes")
    if not isinstance(outcomes, list) or len(outcomes) != len(observed.calls) or result.command.status != 0:
        complaint = str(report.get("complaint", "it left no report that can be read"))[:100]
        return [f"the process that answers them ended with status {result.command.status}: {complaint}"]
    half = len(observed.calls) // 2
    return [
        f"call {index}{' (by a later clock)' if index >= half else ''}: {_difference(_words(said), _words(right))}"
        for index, (said, right) in enumerate(zip(outcomes, observed.outcomes, strict=True))
        if said != right
    ]


async def _run(place: VerdictPlace, task: CodeTask, tree: Path, settings: dict[str, Any], stdin: bytes) -> SealedResult:
    assert task.heldout is not None
    roots = [f"/workspace/{root}" for root in task.settings.import_roots]
    settings = settings | {"packages": place.environment.packages, "roots": roots, "heldout": _INSIDE}
    result = await place.sandboxes.run_sealed(
        SealedRun(
            Command(place.environment.argv("heldout_calls", json.dumps(settings)), stdin=stdin, timeout_s=task.settings.timeout_s),
            trees=(tree,),
            shown=(*place.environment.shown, (task.heldout, _INSIDE)),
            max_report_bytes=_MAX_REPORT_BYTES,
        )
    )
    if result.command.is_timeout or result.spent:
        why = result.spent or f"no end within {task.settings.timeout_s:g} s"
        raise VerifierError(f"no verdict on {task.task_id}: held-out calls ({settings['mode']}): {why}")
    return result


def _read(result: SealedResult) -> dict[str, Any]:
    """The report, which may be any bytes; {} if it is not one."""
    if result.is_report_cut:
        return {"complaint": f"a report of more than {_MAX_REPORT_BYTES:,} bytes"}
    try:
        report = json.loads(result.report)
    except (ValueError, RecursionError):
        return {}
    return report if isinstance(report, dict) else {}


def _difference(said: str, right: str) -> str:
    return "another value" if said == right == "a value" else f"{said} instead of {right}"


def _words(outcome: object) -> str:
    """What kind of outcome it is; from the work's process it may be anything."""
    try:
        kind, content = json.loads(outcome) if isinstance(outcome, str) else ("", "")
    except (ValueError, RecursionError, TypeError):
        return "nothing that can be read"
    if kind == "raises" and isinstance(content, str) and _NAME.fullmatch(content):
        return content.removeprefix("builtins.")
    return {"value": "a value", "fault": "no plain data"}.get(kind if isinstance(kind, str) else "", "nothing that can be read")


def summary(mismatches: Sequence[str], num_calls: int) -> str:
    """How many calls differ, and the first ones."""
    return f"{len(mismatches)} of {num_calls} held-out calls differ: {'; '.join(mismatches[:2])}"
