"""Certificates: what they prove, what they refuse, and how the store guards them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from trunkline.errors import CertificateError, VerifierError
from trunkline.protocols import Attempt, Tools
from trunkline.tasks.base import Conduct
from trunkline.tasks.certificate import NUM_SEEDS, Certificate, CertificateStore, certificate_key, certify, require
from trunkline.tasks.lookup.attacks import CONDUCTS
from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset
from trunkline.types import Reward, Task, Work


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUNKLINE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def taskset() -> LookupTaskset:
    return LookupTaskset(LookupConfig())


@pytest.fixture(scope="module")
def certificate(taskset: LookupTaskset) -> Certificate:
    return certify(taskset)


@pytest.fixture
def store(tmp_path: Path) -> CertificateStore:
    return CertificateStore(tmp_path / "certificates")


class SubstringVerifier:
    """Looks for the right answer anywhere in the text, and for no lookup."""

    def __init__(self, expected: str) -> None:
        self._expected = expected

    async def verify(self, work: Work) -> tuple[Reward, ...]:
        return (Reward("outcome", float(self._expected in work.answer), "a substring"),)


class Forgeable(LookupTaskset):
    """The lookup taskset under a verifier that can be cheated."""

    def open(self, task: Task) -> Attempt:
        return replace(super().open(task), verifier=SubstringVerifier(task.payload["answer"]))


class FlakyVerifier:
    """Changes its mind now and then."""

    rng = random.Random(0)

    async def verify(self, work: Work) -> tuple[Reward, ...]:
        return (Reward("outcome", float(self.rng.random() < 0.99), "a mood"),)


class Flaky(LookupTaskset):
    """The lookup taskset under a verifier that does not repeat itself."""

    conducts = CONDUCTS[:1]

    def open(self, task: Task) -> Attempt:
        return replace(super().open(task), verifier=FlakyVerifier())


class CrashingVerifier:
    """Can be brought to give no verdict."""

    async def verify(self, work: Work) -> tuple[Reward, ...]:
        if not work.answer:
            raise VerifierError("no answer to judge")
        return (Reward("outcome", 1.0, "said something"),)


class Crashing(LookupTaskset):
    """The lookup taskset under a verifier that an attack can silence."""

    conducts = CONDUCTS[:2]

    def open(self, task: Task) -> Attempt:
        return replace(super().open(task), verifier=CrashingVerifier())


class Bare:
    """A taskset that says nothing of how it may be cheated."""

    name = "bare"

    def task(self, split: str, index: int) -> Task:
        return Task(f"{split}/{index}", self.name, "only", (), {})

    def open(self, task: Task) -> Attempt:
        raise AssertionError("never opened")


def test_certificate_counts_every_conduct_on_at_least_500_tasks_of_all_kinds(certificate: Certificate) -> None:
    assert [check.conduct for check in certificate.checks] == [conduct.name for conduct in CONDUCTS]
    assert [check.earns for check in certificate.checks] == [1] + [0] * (len(CONDUCTS) - 1)
    assert all(check.num_attempts == NUM_SEEDS >= 500 and check.passed for check in certificate.checks)
    assert all(check.residual_low == 0 and 0.007 < check.residual_high < 0.0073 for check in certificate.checks)
    assert len(certificate.num_tasks_by_kind) == 5 and min(certificate.num_tasks_by_kind.values()) > 90
    assert certificate.not_excluded


def test_certificate_is_made_beside_a_running_event_loop(taskset: LookupTaskset, certificate: Certificate) -> None:
    async def certify_inside() -> Certificate:
        return certify(taskset)

    assert asyncio.run(certify_inside()) == certificate


def test_stored_certificate_is_found_again_and_required(taskset: LookupTaskset, certificate: Certificate, store: CertificateStore) -> None:
    assert store.get(taskset) is None
    with pytest.raises(CertificateError, match="certify it first"):
        require(taskset, store)
    store.put(certificate)
    assert store.get(taskset) == certificate == require(taskset, store)


def test_another_configuration_needs_its_own_certificate(taskset: LookupTaskset, certificate: Certificate, store: CertificateStore) -> None:
    store.put(certificate)
    other = LookupTaskset(LookupConfig(call_budget=5))
    assert certificate_key(other) != certificate_key(taskset)
    with pytest.raises(CertificateError, match="as configured"):
        require(other, store)


def test_key_changes_with_the_attack_corpus(taskset: LookupTaskset) -> None:
    class Newer(LookupTaskset):
        attack_corpus_version = LookupTaskset.attack_corpus_version + 1

    class Same(LookupTaskset):
        pass

    assert certificate_key(Newer(taskset.config)) != certificate_key(Same(taskset.config))


def test_edited_counts_are_refused(taskset: LookupTaskset, certificate: Certificate, store: CertificateStore) -> None:
    store.put(certificate)
    (path,) = store.folder.iterdir()
    path.write_text(path.read_text().replace('"num_attempts": 512', '"num_attempts": 5120', 1))
    with pytest.raises(CertificateError, match="was edited"):
        require(taskset, store)
    path.write_text("{}")
    with pytest.raises(CertificateError, match="no certificate"):
        require(taskset, store)


def test_certificate_under_another_key_is_refused(taskset: LookupTaskset, certificate: Certificate, store: CertificateStore) -> None:
    store.put(certificate)
    (path,) = store.folder.iterdir()
    other = certificate.model_copy(update={"key": "0" * 64}).sealed()
    path.write_text(other.model_dump_json())
    with pytest.raises(CertificateError, match="is of 'lookup' 000000"):
        require(taskset, store)


def test_certificate_that_covers_less_than_the_corpus_is_refused(
    taskset: LookupTaskset, certificate: Certificate, store: CertificateStore
) -> None:
    failed = certificate.checks[2].model_copy(update={"num_wrong": 1})
    few = certificate.checks[4].model_copy(update={"num_attempts": 10})
    checks = (*certificate.checks[:2], failed, certificate.checks[3], few, *certificate.checks[6:])
    store.put(certificate.model_copy(update={"checks": checks}).sealed())
    with pytest.raises(CertificateError, match="guess without lookups.*quote another entity.*quote another attribute"):
        require(taskset, store)


def test_unsealed_certificate_is_not_stored(certificate: Certificate, store: CertificateStore) -> None:
    with pytest.raises(CertificateError, match="not sealed"):
        store.put(certificate.model_copy(update={"digest": ""}))


def test_forgeable_verifier_gets_no_certificate_and_the_attack_is_named() -> None:
    with pytest.raises(CertificateError, match=r"'answer from memory' must earn 0: 512 wrong.*for example task '.*a substring"):
        certify(Forgeable(LookupConfig()))


def test_flaky_verifier_gets_no_certificate() -> None:
    with pytest.raises(CertificateError, match="'oracle' must earn 1: .* disagreeing verdicts of 512"):
        certify(Flaky(LookupConfig()))


def test_verifier_that_can_be_silenced_gets_no_certificate() -> None:
    with pytest.raises(CertificateError, match="'no-op' must earn 0: 512 wrong.*no answer to judge"):
        certify(Crashing(LookupConfig()))


def test_corpus_grows_by_data(taskset: LookupTaskset) -> None:
    async def shout(task: Task, tools: Tools, rng: random.Random) -> str:
        return task.payload["answer"].upper()

    class Grown(LookupTaskset):
        conducts = (*CONDUCTS[:2], Conduct("shout", 0, shout))
        attack_corpus_version = 2

    assert [check.conduct for check in certify(Grown(taskset.config)).checks] == ["oracle", "no-op", "shout"]


def test_taskset_without_conducts_cannot_be_certified() -> None:
    with pytest.raises(CertificateError, match="offers no conducts"):
        certify(Bare())
