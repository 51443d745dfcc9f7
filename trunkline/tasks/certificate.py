"""Proof that a taskset's verifier pays honest work and nothing else, made by running the taskset's corpus of conducts.

    certify: oracle = 1, every attack = 0, repeated verdicts agree ──► Certificate ──► CertificateStore ──► require

Owns the trial, the certificate and the store; conducts are the taskset's. The store is ours: it lies in the user's own
folder, and a certificate that ships with a task is never read. Its digest shows accidents and casual edits, not a
forger who can write to that folder.
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
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.stats import binomtest

from trunkline.errors import CertificateError, VerifierError
from trunkline.home import cache_home
from trunkline.protocols import Taskset, Verifier
from trunkline.tasks.base import CertifiableTaskset, Conduct
from trunkline.tasks.cache import write_whole
from trunkline.types import Task, Work

NUM_SEEDS = 512
"""Attempts a conduct; 0 failures of 512 bound the rate of failure below 0.72% (Clopper-Pearson, two-sided 95%)."""

_CONFIDENCE = 0.95
_INDEX_RANGE = 10**9
_CANDIDATES_A_TASK = 4


class Check(BaseModel):
    """What one conduct earned over many tasks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    conduct: str
    """Its name in the corpus."""
    earns: Literal[0, 1]
    """What it must earn."""
    num_attempts: int
    """Tasks tried."""
    num_wrong: int
    """Attempts that earned something else."""
    num_disagreeing: int
    """Attempts whose repeated verdict, or whose repetition from a fresh start, differed."""
    residual_low: float
    """Lower end of the 95% Clopper-Pearson interval of the rate of wrong or disagreeing attempts."""
    residual_high: float
    """Its upper end: what the sample cannot exclude."""

    @property
    def passed(self) -> bool:
        """Nothing was wrong and nothing disagreed."""
        return self.num_wrong == 0 and self.num_disagreeing == 0


class Certificate(BaseModel):
    """The outcome of certify(), as it is stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    taskset: str
    """Short name."""
    key: str
    """Hash of what was certified; see certificate_key."""
    attack_corpus_version: int
    """Of the taskset's conducts."""
    checks: tuple[Check, ...]
    """One a conduct."""
    num_tasks_by_kind: dict[str, int]
    """How the tasks tried were spread."""
    not_excluded: tuple[str, ...]
    """Classes of unearned reward that remain possible, in words."""
    digest: str = ""
    """SHA-256 over all other fields."""

    def sealed(self) -> Certificate:
        """The same certificate with its digest."""
        return self.model_copy(update={"digest": self.expected_digest()})

    def expected_digest(self) -> str:
        """What `digest` is if nobody edited the rest."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json", exclude={"digest"}), sort_keys=True).encode()).hexdigest()


class CertificateStore:
    """Certificates as JSON files named by taskset and key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def default(cls) -> CertificateStore:
        """$TRUNKLINE_HOME/certificates, else ~/.cache/trunkline/certificates."""
        return cls(cache_home() / "certificates")

    def get(self, taskset: Taskset) -> Certificate | None:
        """The certificate of exactly this taskset; None if there is none. Raises CertificateError for one that was edited."""
        path = self._path(taskset.name, certificate_key(taskset))
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise CertificateError(f"cannot read {path}: {error}; delete it to certify again") from error
        try:
            certificate = Certificate.model_validate_json(text)
        except ValidationError as error:
            raise CertificateError(f"{path} is no certificate: {error}; delete it to certify again") from error
        if certificate.digest != certificate.expected_digest():
            raise CertificateError(f"{path} was edited: its digest does not match its content; delete it to certify again")
        return certificate

    def put(self, certificate: Certificate) -> None:
        """Stores it. Raises CertificateError if it is not sealed or the folder cannot be written."""
        if certificate.digest != certificate.expected_digest():
            raise CertificateError(f"the certificate of {certificate.taskset!r} is not sealed; store what certify() returned")
        path = self._path(certificate.taskset, certificate.key)
        try:
            write_whole(path, certificate.model_dump_json(indent=2))
        except OSError as error:
            raise CertificateError(f"cannot store {path}: {error}; set TRUNKLINE_HOME to a writable folder") from error

    def _path(self, taskset: str, key: str) -> Path:
        return self.folder / f"{taskset}-{key[:32]}.json"


def certificate_key(taskset: Taskset) -> str:
    """SHA-256 of the taskset's identity, the source of its folder, the attack-corpus version, and this trial's source.

    Raises CertificateError for a taskset that cannot be certified.
    """
    certifiable = _certifiable(taskset)
    source_folder = Path(inspect.getfile(type(taskset))).parent
    sources = {path.name: path.read_text(encoding="utf-8") for path in sorted(source_folder.glob("*.py"))}
    parts = [certifiable.identity(), sources, certifiable.attack_corpus_version, Path(__file__).read_text(encoding="utf-8")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def certify(taskset: Taskset) -> Certificate:
    """Runs every conduct on NUM_SEEDS tasks spread over all splits, twice each. CPU seconds, no model.

    Works beside a running event loop: the trial has its own, in a thread. Raises CertificateError that names every
    conduct that earned what it must not, with counts and an example.
    """
    certifiable = _certifiable(taskset)
    key = certificate_key(taskset)
    tasks = _tasks_of_all_kinds(certifiable, random.Random(key))
    with ThreadPoolExecutor(1) as thread:
        trials = thread.submit(asyncio.run, _try_all(certifiable, tasks)).result()
    complaints = [trial.complaint for trial in trials if trial.complaint is not None]
    if complaints:
        raise CertificateError(f"the verifier of {taskset.name!r} pays wrongly, repair it: " + "; ".join(complaints))
    return Certificate(
        taskset=taskset.name,
        key=key,
        attack_corpus_version=certifiable.attack_corpus_version,
        checks=tuple(trial.check for trial in trials),
        num_tasks_by_kind=dict(sorted(Counter(task.kind for task in tasks).items())),
        not_excluded=tuple(certifiable.not_excluded),
    ).sealed()


def require(taskset: Taskset, store: CertificateStore) -> Certificate:
    """The taskset's certificate from our store. Raises CertificateError if there is none, or it does not cover the corpus."""
    certificate = store.get(taskset)
    if certificate is None:
        raise CertificateError(f"no certificate of taskset {taskset.name!r} (as configured) in {store.folder}; certify it first")
    if certificate.key != certificate_key(taskset) or certificate.taskset != taskset.name:
        raise CertificateError(
            f"the certificate in {store.folder} is of {certificate.taskset!r} {certificate.key:.12}, not of {taskset.name!r}"
        )
    passed = {(check.conduct, check.earns) for check in certificate.checks if check.passed and check.num_attempts >= NUM_SEEDS}
    unproven = [conduct.name for conduct in _certifiable(taskset).conducts if (conduct.name, conduct.earns) not in passed]
    if unproven:
        raise CertificateError(f"the certificate of {taskset.name!r} does not prove {unproven} on {NUM_SEEDS} tasks; certify again")
    return certificate


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
    num_failed = len(wrong) + len(disagreeing)
    interval = binomtest(num_failed, len(tasks)).proportion_ci(_CONFIDENCE, method="exact")
    check = Check(
        conduct=conduct.name,
        earns=conduct.earns,
        num_attempts=len(tasks),
        num_wrong=len(wrong),
        num_disagreeing=len(disagreeing),
        residual_low=float(interval.low),
        residual_high=float(interval.high),
    )
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


def _certifiable(taskset: Taskset) -> CertifiableTaskset:
    if not isinstance(taskset, CertifiableTaskset):
        raise CertificateError(f"taskset {taskset.name!r} offers no conducts; implement CertifiableTaskset of trunkline/tasks/base.py")
    return taskset
