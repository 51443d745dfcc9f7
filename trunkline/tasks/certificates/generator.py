"""The trial of a taskset that makes tasks without end: its whole corpus of conducts on a sample of seeds. Owns the trial only.

    tasks of all splits and kinds ──► every conduct, twice, each judged twice: oracle = 1, attacks = 0, verdicts agree ──► Certificate

Conducts are the taskset's.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from trunkline.errors import CertificateError, VerifierError
from trunkline.protocols import Verifier
from trunkline.tasks.base import CertifiableTaskset, Conduct, Subject
from trunkline.tasks.certificates.certificate import Certificate, Check
from trunkline.types import Task, Work

NUM_SEEDS = 512
"""Attempts a conduct; 0 failures of 512 bound the rate of failure below 0.72% (Clopper-Pearson, two-sided 95%)."""

_INDEX_RANGE = 10**9
_CANDIDATES_A_TASK = 4


def taskset_key(taskset: CertifiableTaskset) -> str:
    """SHA-256 of the taskset's identity, the sources of its folder, the attack-corpus version, and the sources of the trial."""
    folders = Path(inspect.getfile(type(taskset))).parent, Path(__file__).parent
    sources = [{path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))} for folder in folders]
    parts = [taskset.identity(), taskset.attack_corpus_version, sources]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def taskset_subject(taskset: CertifiableTaskset) -> Subject:
    """What the store knows it by."""
    return Subject(taskset.name, taskset_key(taskset))


def certify_taskset(taskset: CertifiableTaskset) -> Certificate:
    """Runs every conduct on NUM_SEEDS tasks spread over all splits, twice each. CPU seconds, no model.

    Works beside a running event loop: the trial has its own, in a thread. Raises CertificateError that names every
    conduct that earned what it must not, with counts and an example.
    """
    key = taskset_key(taskset)
    tasks = _tasks_of_all_kinds(taskset, random.Random(key))
    with ThreadPoolExecutor(1) as thread:
        trials = thread.submit(asyncio.run, _try_all(taskset, tasks)).result()
    complaints = [trial.complaint for trial in trials if trial.complaint is not None]
    if complaints:
        raise CertificateError(f"the verifier of {taskset.name!r} pays wrongly, repair it: " + "; ".join(complaints))
    return Certificate(
        kind="taskset",
        subject=taskset.name,
        key=key,
        attack_corpus_version=str(taskset.attack_corpus_version),
        checks=tuple(trial.check for trial in trials),
        num_tasks_by_kind=dict(sorted(Counter(task.kind for task in tasks).items())),
        not_excluded=tuple(taskset.not_excluded),
    ).sealed()


def unproven_conducts(taskset: CertifiableTaskset, certificate: Certificate) -> list[str]:
    """Conducts of the taskset that a certificate does not show to earn what they must, on NUM_SEEDS tasks."""
    proven = {(check.conduct, check.earns) for check in certificate.checks if check.passed and check.num_attempts >= NUM_SEEDS}
    return [conduct.name for conduct in taskset.conducts if (conduct.name, conduct.earns) not in proven]


@dataclass(frozen=True)
class _Trial:
    """A conduct's check, and what to complain of if it did not pass."""

    check: Check
    complaint: str | None


def _tasks_of_all_kinds(taskset: CertifiableTaskset, rng: random.Random) -> list[Task]:
    """NUM_SEEDS tasks over all splits in which rare kinds count as much as common ones."""
    by_kind: dict[str, list[Task]] = defaultdict(list)
    for number in range(_CANDIDATES_A_TASK * NUM_SEEDS):
        task = taskset.task(taskset.splits[number % len(taskset.splits)], rng.randrange(_INDEX_RANGE))
        by_kind[task.kind].append(task)
    rounds = zip_longest(*(by_kind[kind] for kind in sorted(by_kind)))
    return [task for one_of_each in rounds for task in one_of_each if task is not None][:NUM_SEEDS]


async def _try_all(taskset: CertifiableTaskset, tasks: Sequence[Task]) -> list[_Trial]:
    return [await _try(taskset, conduct, tasks) for conduct in taskset.conducts]


async def _try(taskset: CertifiableTaskset, conduct: Conduct, tasks: Sequence[Task]) -> _Trial:
    wrong: list[str] = []
    disagreeing: list[str] = []
    for task in tasks:
        verdicts = [verdict for _ in range(2) for verdict in await _verdicts(taskset, conduct, task)]
        values = {verdict.value for verdict in verdicts}
        example = f"task {task.task_id!r} ({task.kind}) earned {sorted(map(str, values))}, evidence: {verdicts[0].evidence}"
        if len(values) > 1:
            disagreeing.append(example)
        elif values != {float(conduct.earns)}:
            wrong.append(example)
    check = Check.count(
        conduct.name, conduct.earns, num_attempts=len(tasks), num_wrong=len(wrong), num_disagreeing=len(disagreeing)
    )  # fmt: skip
    if check.passed:
        return _Trial(check, None)
    counts = f"{len(wrong)} wrong and {len(disagreeing)} disagreeing verdicts of {len(tasks)}"
    return _Trial(check, f"conduct {conduct.name!r} must earn {conduct.earns}: {counts}; for example {[*wrong, *disagreeing][0]}")


class _Verdict(NamedTuple):
    value: float | None
    """None if the verifier gave no verdict, which nothing may bring it to."""
    evidence: str


async def _verdicts(taskset: CertifiableTaskset, conduct: Conduct, task: Task) -> list[_Verdict]:
    """One attempt, judged twice; the conduct draws the same numbers whenever it is repeated."""
    attempt = taskset.open(task)
    answer = await conduct.act(task, attempt.tools, random.Random(f"{conduct.name}/{task.task_id}"))
    return [await _verdict(attempt.verifier, answer) for _ in range(2)]


async def _verdict(verifier: Verifier, answer: str) -> _Verdict:
    try:
        rewards = await verifier.verify(Work(answer))
    except VerifierError as error:
        return _Verdict(None, str(error))
    return _Verdict(sum(reward.value for reward in rewards), "; ".join(reward.evidence for reward in rewards))
