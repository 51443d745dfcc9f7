"""What a run asks before it trains: certificates of a generator of tasks, of single tasks, and what is said if there are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from trunkline.errors import CertificateError
from trunkline.protocols import Attempt
from trunkline.tasks.base import Subject
from trunkline.tasks.certificates.certificate import NO_OP, ORACLE, Certificate, Check
from trunkline.tasks.certificates.generator import NUM_SEEDS, taskset_key
from trunkline.tasks.certificates.requirement import require, standing
from trunkline.tasks.certificates.store import CertificateStore
from trunkline.tasks.lookup.attacks import CONDUCTS
from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset
from trunkline.types import Task


@pytest.fixture(scope="module")
def taskset() -> Iterator[LookupTaskset]:
    yield LookupTaskset(LookupConfig())


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    return CertificateStore(tmp_path / "certificates")


def certificate_of(taskset: LookupTaskset) -> Certificate:
    """As if the trial had passed."""
    return Certificate(
        kind="taskset",
        subject=taskset.name,
        key=taskset_key(taskset),
        attack_corpus_version="1",
        checks=tuple(
            Check.count(conduct.name, conduct.earns, num_attempts=NUM_SEEDS, num_wrong=0, num_disagreeing=0) for conduct in CONDUCTS
        ),
        num_tasks_by_kind={},
        not_excluded=(),
    ).sealed()


class Bare:
    """A taskset that says nothing of how it may be cheated."""

    name = "bare"

    def task(self, split: str, index: int) -> Task:
        return Task(f"{split}/{index}", self.name, "only", (), {})

    def open(self, task: Task) -> Attempt:
        raise AssertionError("never opened")


class Tasks(Bare):
    """A taskset of single tasks."""

    name = "single"

    def __init__(self, *subjects: Subject) -> None:
        self._subjects = subjects

    def subjects(self) -> Sequence[Subject]:
        return self._subjects


def subject(number: int) -> Subject:
    return Subject(f"owner/task-{number}", f"{number:064x}", Path("my tasks") / f"task-{number}")


def put(store: CertificateStore, subject: Subject, *, attack_earned: bool = False, kind: str = "task", guessable: bool = False) -> None:
    conducts = ((ORACLE, 1, False), (NO_OP, 0, False), ("attack", 0, attack_earned))
    checks = [Check.count(name, 1 if earns else 0, num_attempts=1, num_wrong=wrong, num_disagreeing=0) for name, earns, wrong in conducts]
    certificate = Certificate.model_validate(
        {
            "kind": kind,
            "subject": subject.name,
            "key": subject.key,
            "attack_corpus_version": "1",
            "checks": tuple(checks),
            "num_tasks_by_kind": {"bug": 1},
            "not_excluded": (),
            "guessable": guessable,
        }
    )
    store.put(certificate.sealed())


def test_certified_generator_is_required_by_its_key(taskset: LookupTaskset, store: CertificateStore) -> None:
    store.put(certificate_of(taskset))
    assert require(taskset, store) == {"lookup": taskset_key(taskset)}


def test_generator_without_a_certificate_is_refused(taskset: LookupTaskset, store: CertificateStore) -> None:
    with pytest.raises(CertificateError, match="no certificate of taskset 'lookup'.* certify it first"):
        require(taskset, store)
    assert list(standing(taskset, store).uncertified) == ["lookup"]


def test_another_configuration_needs_its_own_certificate(taskset: LookupTaskset, store: CertificateStore) -> None:
    store.put(certificate_of(taskset))
    with pytest.raises(CertificateError, match="as configured"):
        require(LookupTaskset(LookupConfig(call_budget=5)), store)


def test_certificate_that_covers_less_than_the_corpus_is_refused(taskset: LookupTaskset, store: CertificateStore) -> None:
    certificate = certificate_of(taskset)
    failed = certificate.checks[2].model_copy(update={"num_wrong": 1})
    few = certificate.checks[4].model_copy(update={"num_attempts": 10})
    checks = (*certificate.checks[:2], failed, certificate.checks[3], few, *certificate.checks[6:])
    store.put(certificate.model_copy(update={"checks": checks}).sealed())
    with pytest.raises(CertificateError, match="guess without lookups.*quote another entity.*quote another attribute"):
        require(taskset, store)


def test_taskset_without_conducts_is_refused(store: CertificateStore) -> None:
    with pytest.raises(CertificateError, match="offers no conducts"):
        require(Bare(), store)


def test_single_tasks_are_required_by_name_and_key(store: CertificateStore) -> None:
    for number in (1, 2):
        put(store, subject(number))
    assert require(Tasks(subject(1), subject(2)), store) == {"owner/task-1": subject(1).key, "owner/task-2": subject(2).key}


def test_every_uncertified_task_is_named_with_the_command_that_certifies_it(store: CertificateStore) -> None:
    put(store, subject(1))
    with pytest.raises(CertificateError) as refused:
        require(Tasks(*map(subject, range(4))), store)
    message = str(refused.value)
    assert message.startswith("3 of 4 tasks of taskset 'single' may not be trained on: owner/task-0 (no certificate), owner/task-2 (")
    assert message.endswith(": trunkline tasks certify 'my tasks/task-0' 'my tasks/task-2' 'my tasks/task-3'")
    found = standing(Tasks(*map(subject, range(4))), store)
    assert list(found.certificates) == ["owner/task-1"] and list(found.uncertified) == ["owner/task-0", "owner/task-2", "owner/task-3"]


def test_of_very_many_uncertified_tasks_ten_are_named(store: CertificateStore) -> None:
    with pytest.raises(CertificateError) as refused:
        require(Tasks(*map(subject, range(25))), store)
    message = str(refused.value)
    assert "25 of 25" in message and "owner/task-9 (" in message and "owner/task-10 " not in message and "and 15 more;" in message
    assert message.endswith("trunkline tasks certify 'my tasks'")


def test_task_whose_attack_earned_is_refused(store: CertificateStore) -> None:
    put(store, subject(1), attack_earned=True)
    with pytest.raises(CertificateError, match="does not show that it passed"):
        require(Tasks(subject(1)), store)


def test_task_whose_tests_can_be_guessed_is_refused_though_it_is_certified(store: CertificateStore) -> None:
    put(store, subject(1), guessable=True)
    with pytest.raises(CertificateError, match="can be guessed; write tests/heldout.py"):
        require(Tasks(subject(1)), store)


def test_certificate_of_a_taskset_is_none_of_a_task(store: CertificateStore) -> None:
    put(store, subject(1), kind="taskset")
    with pytest.raises(CertificateError, match="does not show that it passed"):
        require(Tasks(subject(1)), store)


def test_edited_certificate_of_a_task_is_refused(store: CertificateStore) -> None:
    put(store, subject(1))
    (path,) = store.folder.iterdir()
    path.write_text(path.read_text().replace('"bug": 1', '"bug": 2'))
    with pytest.raises(CertificateError, match="owner/task-1 .*was edited"):
        require(Tasks(subject(1)), store)


def test_rewards_that_no_certificate_can_speak_for_are_refused_with_what_to_do(store: CertificateStore) -> None:
    beyond = Subject("owner/task", "a" * 64, Path("task"), beyond="judged by luck")
    with pytest.raises(CertificateError, match=r"1 tasks .*: judged by luck; no certificate can change that: set allow_uncertified"):
        require(Tasks(beyond), store)
