"""The trial of a generator of tasks: what it proves, and which verifiers get no certificate."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from trunkline.errors import CertificateError, VerifierError
from trunkline.protocols import Attempt, Tools
from trunkline.tasks.base import Conduct
from trunkline.tasks.certificates.certificate import Certificate
from trunkline.tasks.certificates.generator import NUM_SEEDS, certify_taskset, taskset_key
from trunkline.tasks.lookup.attacks import CONDUCTS
from trunkline.tasks.lookup.taskset import LookupConfig, LookupTaskset
from trunkline.types import Reward, Task, Work


@pytest.fixture(scope="module")
def taskset() -> LookupTaskset:
    return LookupTaskset(LookupConfig())


@pytest.fixture(scope="module")
def certificate(taskset: LookupTaskset) -> Certificate:
    return certify_taskset(taskset)


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


def test_certificate_counts_every_conduct_on_at_least_500_tasks_of_all_kinds(certificate: Certificate) -> None:
    assert [check.conduct for check in certificate.checks] == [conduct.name for conduct in CONDUCTS]
    assert [check.earns for check in certificate.checks] == [1] + [0] * (len(CONDUCTS) - 1)
    assert all(check.num_attempts == NUM_SEEDS >= 500 and check.passed for check in certificate.checks)
    assert all(check.residual_low == 0 and 0.007 < check.residual_high < 0.0073 for check in certificate.checks)
    assert len(certificate.num_tasks_by_kind) == 5 and min(certificate.num_tasks_by_kind.values()) > 90
    assert certificate.not_excluded


def test_certificate_is_made_beside_a_running_event_loop(taskset: LookupTaskset, certificate: Certificate) -> None:
    async def certify_inside() -> Certificate:
        return certify_taskset(taskset)

    assert asyncio.run(certify_inside()) == certificate


def test_another_configuration_has_another_key(taskset: LookupTaskset) -> None:
    assert taskset_key(LookupTaskset(LookupConfig(call_budget=5))) != taskset_key(taskset) == taskset_key(LookupTaskset(LookupConfig()))


def test_key_changes_with_the_attack_corpus(taskset: LookupTaskset) -> None:
    class Newer(LookupTaskset):
        attack_corpus_version = LookupTaskset.attack_corpus_version + 1

    class Same(LookupTaskset):
        pass

    assert taskset_key(Newer(taskset.config)) != taskset_key(Same(taskset.config))


def test_forgeable_verifier_gets_no_certificate_and_the_attack_is_named() -> None:
    with pytest.raises(CertificateError, match=r"'answer from memory' must earn 0: 512 wrong.*for example task '.*a substring"):
        certify_taskset(Forgeable(LookupConfig()))


def test_flaky_verifier_gets_no_certificate() -> None:
    with pytest.raises(CertificateError, match="'oracle' must earn 1: .* disagreeing verdicts of 512"):
        certify_taskset(Flaky(LookupConfig()))


def test_verifier_that_can_be_silenced_gets_no_certificate() -> None:
    with pytest.raises(CertificateError, match="'no-op' must earn 0: 512 wrong.*no answer to judge"):
        certify_taskset(Crashing(LookupConfig()))


def test_corpus_grows_by_data(taskset: LookupTaskset) -> None:
    async def shout(task: Task, tools: Tools, rng: random.Random) -> str:
        return task.payload["answer"].upper()

    class Grown(LookupTaskset):
        conducts = (*CONDUCTS[:2], Conduct("shout", 0, shout))
        attack_corpus_version = 2

    assert [check.conduct for check in certify_taskset(Grown(taskset.config)).checks] == ["oracle", "no-op", "shout"]
