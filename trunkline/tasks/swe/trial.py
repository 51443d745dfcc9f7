"""The trial of one software task: its solution must earn 1, doing nothing and every attack 0. Owns the trial, no key and no verdict.

    verdicts on: the solution, again and again ─► nothing ─► every attack that can be made of the task
                    │ all 1                        │ all 0      │ all 0
                    ▼                              ▼            ▼
       CertificateError that names what went wrong, with the evidence ◄── else ── Certificate

An attack that has a script is carried out where an agent would do it, in an ordinary sandbox; of others only the changes are
needed. What each attack is, attacks/*.toml say.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from trunkline.errors import CertificateError, TaskError, VerifierError
from trunkline.protocols import Sandboxes, Verifier, Workspace
from trunkline.tasks.certificates.certificate import NO_OP, ORACLE, Certificate, Check
from trunkline.tasks.swe.attacks import Attack, Instance, NotApplicable, carry_out, instantiate
from trunkline.tasks.swe.calibration import Calibration
from trunkline.tasks.swe.material import Material
from trunkline.tasks.swe.task import CodeTask
from trunkline.types import FileChange, Work

NUM_NO_OP = 2
"""Verdicts on nothing."""
_WORDS = 400
_ADVICE = (
    ". Its verdict is what tests/test.sh leaves in the reward file, with the agent's code running beside it; if its tests are pytest's, "
    'let them judge: verifier = "pytest" in [metadata.trunkline] of task.toml'
)


@dataclass(frozen=True)
class Prepared:
    """What a trial is made with."""

    verifier: Verifier
    """What is tried."""
    material: Material
    """What attacks are made of; the solution is a part of it."""
    calibration: Calibration | None
    """What every verdict needs; None if a script judges."""
    not_excluded: tuple[str, ...]
    """What verdicts leave open, in words."""
    guessable: bool = False
    """See `Certificate.guessable`."""


@dataclass
class Steps:
    """How far the trial has come."""

    tell: Callable[[str, int, int], None]
    """Is told what is done next, how many verdicts are done and how many there are."""
    total: int
    """Verdicts in all."""
    done: int = 0
    """Verdicts made."""

    def begin(self, words: str) -> None:
        """Another step, in words."""
        self.tell(words, self.done, self.total)

    def end(self) -> None:
        """A verdict is made."""
        self.done += 1

    def skip(self, num: int) -> None:
        """So many verdicts are not made."""
        self.total -= num


@dataclass(frozen=True)
class Trial:
    """Of one task, wherever its verdicts are made."""

    task: CodeTask
    """The task."""
    sandboxes: Sandboxes
    """Where attacks are carried out."""
    key: Callable[[], str]
    """The key of its certificate, of the files as they are when it is asked."""
    corpus: tuple[Attack, ...]
    """What is tried."""
    corpus_version: str
    """Of that."""
    steps: Steps
    """Whom it tells."""

    async def certificate(self, prepare: Callable[[], Awaitable[Prepared]], *, repeats: int) -> Certificate:
        """Raises CertificateError: the task or its verdicts are at fault, with all that failed; SandboxError: this host is."""
        try:
            key = self.key()
            prepared = await prepare()
        except (TaskError, VerifierError) as error:
            raise CertificateError(f"{self.task.task_id} cannot be certified: {error}") from error
        verifier, oracle, calibration = prepared.verifier, prepared.material.oracle, prepared.calibration
        honest = [await self._repeat(verifier, ORACLE, 1, oracle, repeats), await self._repeat(verifier, NO_OP, 0, (), NUM_NO_OP)]
        self._demand(honest)
        instances = {attack.name: instantiate(attack, prepared.material) for attack in self.corpus}
        wanted = {name: instance for name, instance in instances.items() if isinstance(instance, Instance)}
        self.steps.skip(len(instances) - len(wanted))
        attacked = await self._attack(verifier, wanted)
        self._demand(attacked)
        if self.key() != key:
            where = self.task.folder
            raise CertificateError(f"{self.task.task_id}: files in {where} were changed while it was being certified; certify it again")
        return Certificate(
            kind="task",
            subject=self.task.task_id,
            key=key,
            attack_corpus_version=self.corpus_version,
            checks=tuple(found.check for found in (*honest, *attacked)),
            num_tasks_by_kind={self.task.settings.kind: 1},
            not_excluded=prepared.not_excluded,
            guessable=prepared.guessable,
            not_instantiated={name: instance.why for name, instance in instances.items() if isinstance(instance, NotApplicable)},
            quarantined=dict(calibration.quarantined) if calibration is not None else {},
            calibration=calibration.model_dump(mode="json") if calibration is not None else None,
        ).sealed()

    async def _repeat(self, verifier: Verifier, conduct: str, earns: Literal[0, 1], changes: tuple[FileChange, ...], times: int) -> _Found:
        """One after the other, so that nothing but chance makes them differ."""
        verdicts = []
        for number in range(times):
            self.steps.begin(f"{conduct}, {number + 1} of {times}")
            verdicts.append(await _judge(verifier, changes))
            self.steps.end()
        return _count(conduct, earns, verdicts)

    async def _attack(self, verifier: Verifier, instances: Mapping[str, Instance]) -> list[_Found]:
        """Every attack once. One after the other: who certifies many tasks has others for the other cores."""
        workspace, found = await self.sandboxes.prepare(self.task.workspace), []
        try:
            for name, instance in instances.items():
                self.steps.begin(name)
                verdict = await _judge(verifier, await self._left_by(instance, workspace))
                found.append(_count(name, 0, [verdict]))
                self.steps.end()
        finally:
            await asyncio.shield(self.sandboxes.discard(workspace))
        return found

    async def _left_by(self, instance: Instance, workspace: Workspace) -> tuple[FileChange, ...]:
        if not instance.script:
            return instance.changes
        sandbox = await self.sandboxes.create(workspace)
        try:
            await carry_out(instance, sandbox)
            return await sandbox.files.diff()
        finally:
            await asyncio.shield(sandbox.destroy())

    def _demand(self, found: Iterable[_Found]) -> None:
        """Raises CertificateError that names all that failed."""
        failed = [one for one in found if not one.check.passed]
        if not failed:
            return
        is_paid = any(one.check.earns == 0 for one in failed)
        advice = _ADVICE if is_paid and self.task.settings.verifier == "script" else ""
        raise CertificateError(f"{self.task.task_id} cannot be certified: {'; '.join(map(_in_words, failed))}{advice}")


@dataclass(frozen=True)
class _Verdict:
    value: float | None
    """None: no verdict, which nothing may bring a verifier to."""
    evidence: str


@dataclass(frozen=True)
class _Found:
    """A check, and a verdict that it failed by; any other if it passed."""

    check: Check
    example: _Verdict


async def _judge(verifier: Verifier, changes: tuple[FileChange, ...]) -> _Verdict:
    try:
        rewards = await verifier.verify(Work("", changes))
    except VerifierError as error:
        return _Verdict(None, str(error))
    return _Verdict(sum(reward.value for reward in rewards), "; ".join(reward.evidence for reward in rewards))


def _count(conduct: str, earns: Literal[0, 1], verdicts: Sequence[_Verdict]) -> _Found:
    """Verdicts that are all the same are right or wrong; of others those that are not what they should be disagree."""
    off = [verdict for verdict in verdicts if verdict.value != earns]
    agree = len(Counter(verdict.value for verdict in verdicts)) == 1
    num_wrong, num_disagreeing = (len(off), 0) if agree else (0, len(off))
    example = (off or verdicts)[0]
    check = Check.count(
        conduct, earns, num_attempts=len(verdicts), num_wrong=num_wrong, num_disagreeing=num_disagreeing, evidence=example.evidence[:_WORDS]
    )
    return _Found(check, example)


def _in_words(found: _Found) -> str:
    check, example = found.check, found.example
    got = "no verdict" if example.value is None else f"{example.value:g}"
    num_off = check.num_wrong + check.num_disagreeing
    return f"{check.conduct!r} must earn {check.earns}, {num_off} of {check.num_attempts} verdicts: {got}, {example.evidence[:_WORDS]}"
