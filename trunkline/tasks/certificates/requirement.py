"""No certificate, no reward: what a run asks before it trains on a taskset. Owns the question; who asks decides what follows.

tasks that are made without end ──► one certificate of the taskset      ┐
tasks that each have a folder   ──► one certificate of each task        ├─► Standing ──► require: all, or CertificateError
anything else                   ──► none is possible                    ┘
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trunkline.errors import CertificateError
from trunkline.protocols import Taskset
from trunkline.tasks.base import CertifiableTaskset, Subject, TasksetOfCertifiedTasks
from trunkline.tasks.certificates.generator import taskset_subject, unproven_conducts
from trunkline.tasks.certificates.store import CertificateStore

_MOST_NAMED = 10


@dataclass(frozen=True)
class Standing:
    """Which subjects of a taskset have a certificate in a store."""

    certificates: Mapping[str, str]
    """Name to key, of those that have one."""
    uncertified: Mapping[str, str]
    """Name to the reason, of those that have none, or one that says that their tests can be guessed."""


def standing(taskset: Taskset, store: CertificateStore) -> Standing:
    """Looks up everything that the taskset may be trained on. Raises TaskError if a task's files cannot be read."""
    if isinstance(taskset, TasksetOfCertifiedTasks):
        return standing_of_tasks(taskset.subjects(), store)
    reason, key = _reason_against(taskset, store)
    return Standing({}, {taskset.name: reason}) if reason else Standing({taskset.name: key}, {})


def require(taskset: Taskset, store: CertificateStore) -> dict[str, str]:
    """Name to key of every certificate that the taskset needs.

    Raises CertificateError that names what has none, why, and what to do; TaskError if a task's files cannot be read.
    """
    found = standing(taskset, store)
    if not found.uncertified:
        return dict(found.certificates)
    if not isinstance(taskset, TasksetOfCertifiedTasks):
        raise CertificateError(found.uncertified[taskset.name])
    raise CertificateError(_refusal(taskset.name, found, [subject for subject in taskset.subjects() if subject.name in found.uncertified]))


def standing_of_tasks(subjects: Sequence[Subject], store: CertificateStore) -> Standing:
    """Of single tasks."""
    certificates: dict[str, str] = {}
    uncertified: dict[str, str] = {}
    for subject in subjects:
        if subject.beyond:
            uncertified[subject.name] = subject.beyond
            continue
        try:
            certificate = store.get(subject)
        except CertificateError as error:
            uncertified[subject.name] = str(error)
            continue
        if certificate is None:
            uncertified[subject.name] = "no certificate"
        elif certificate.kind != "task" or not certificate.passed:
            uncertified[subject.name] = "its certificate does not show that it passed"
        elif certificate.guessable:
            uncertified[subject.name] = "certified, but all that its tests expect can be guessed; write tests/heldout.py"
        else:
            certificates[subject.name] = subject.key
    return Standing(certificates, uncertified)


def _reason_against(taskset: Taskset, store: CertificateStore) -> tuple[str, str]:
    """Why a generator of tasks may not be trained on, '' if it may; and its key."""
    if not isinstance(taskset, CertifiableTaskset):
        return f"taskset {taskset.name!r} offers no conducts; implement CertifiableTaskset of trunkline/tasks/base.py", ""
    subject = taskset_subject(taskset)
    try:
        certificate = store.get(subject)
    except CertificateError as error:
        return str(error), ""
    if certificate is None:
        return f"no certificate of taskset {taskset.name!r} (as configured) in {store.folder}; certify it first", ""
    if unproven := unproven_conducts(taskset, certificate):
        return f"the certificate of {taskset.name!r} does not prove {unproven}; certify it again", ""
    return "", subject.key


def _refusal(taskset: str, found: Standing, refused: Sequence[Subject]) -> str:
    """The first of the tasks that have no certificate, how many there are, and the command that certifies them."""
    if all(subject.beyond for subject in refused):
        whys = "; ".join(sorted({subject.beyond for subject in refused}))
        cure = "no certificate can change that: set allow_uncertified = true if it is what the run is to show"
        return f"{len(refused)} tasks of taskset {taskset!r} may not be trained on: {whys}; {cure}"
    named = [f"{name} ({reason})" for name, reason in list(found.uncertified.items())[:_MOST_NAMED]]
    if num_more := len(found.uncertified) - len(named):
        named.append(f"and {num_more} more")
    num_all = len(found.uncertified) + len(found.certificates)
    counts = f"{len(found.uncertified)} of {num_all} tasks of taskset {taskset!r} may not be trained on: {', '.join(named)}"
    return f"{counts}; certify them first: trunkline tasks certify {' '.join(_places(refused))}"


def _places(refused: Sequence[Subject]) -> list[str]:
    """The folders as a shell takes them; of very many the folders that they lie in, as certified ones among them cost nothing."""
    folders = [subject.folder for subject in refused if subject.folder is not None]
    if not folders:
        return ["DIR..."]
    if len(folders) <= _MOST_NAMED:
        return [shlex.quote(str(folder)) for folder in folders]
    return [shlex.quote(str(parent)) for parent in sorted({folder.parent for folder in folders})]
