"""`trunkline tasks` on certificates: what our store has of tasks, and several certified at once. Owns the wiring; prints nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import CertificateError, SandboxError, TaskError, TrunklineError
from trunkline.sandbox.config import SandboxConfig
from trunkline.sandbox.isolated import IsolatedSandboxes
from trunkline.tasks.base import Subject
from trunkline.tasks.certificates.certificate import Certificate
from trunkline.tasks.certificates.store import CertificateStore
from trunkline.tasks.formats.harbor import HarborTask, read_harbor
from trunkline.tasks.formats.harbor_honoured import notices, refusals
from trunkline.tasks.swe.certify import calibration_of, certify_task, require_corpus, stored_certificate, task_subject
from trunkline.tasks.swe.container_certify import certify_container_task, container_subject
from trunkline.tasks.swe.container_task import ContainerTask
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.place import VerdictPlace, place_of
from trunkline.tasks.swe.task import CodeTask, load_code_task, read_settings

OnStep = Callable[[str, str, int, int], None]
"""Name of a task, step in words, steps done, steps in all."""
OnEnd = Callable[[str, str], None]
"""Name of a task, how it ended in a line."""


@dataclass(frozen=True)
class Outcome:
    """How certifying one task ended."""

    name: str
    """Of the task."""
    refusal: str
    """Why it has no certificate; '' if it has one."""
    notices: tuple[str, ...] = ()
    """What runs differently than its author may expect."""


async def overview(folder: Path) -> tuple[str, ...]:
    """The cells of a row: task, kind, judge, certificate, numbers of tests, held-out inputs, folder."""
    harbor, where = read_harbor(folder), _where(folder)
    if harbor.needs_image:
        kind = read_settings(folder, harbor.config.metadata).kind
        return (harbor.name, kind, "its script (image)", await _state_of_certificate(harbor), "", "", "no", where)
    task = load_code_task(folder)
    certificate = stored_certificate(task)
    calibration = None if certificate is None else calibration_of(certificate)
    numbers = ("", "") if calibration is None else (str(len(calibration.fail_to_pass)), str(len(calibration.pass_to_pass)))
    judge = {"pytest": "its tests", "script": "its script", "inversion": "faults to notice"}[task.settings.verifier]
    heldout = "yes" if task.heldout else "no"
    state = "no" if certificate is None else "yes, guessable" if certificate.guessable else "yes"
    return (task.task_id, task.settings.kind, judge, state, *numbers, heldout, where)


def _where(folder: Path) -> str:
    return os.path.relpath(folder)


async def _state_of_certificate(harbor: HarborTask) -> str:
    """Of a task whose key may depend on an image."""
    if refusals(harbor):
        return "no: refused"
    try:
        return "yes" if await certificate_of(harbor.folder) else "no"
    except CertificateError:
        return "no"
    except SandboxError:
        return "unknown: no image"


async def subject_of(harbor: HarborTask) -> Subject:
    """What our store knows a task by. Raises TaskError; SandboxError if the task names an image that is not here."""
    if harbor.needs_image:
        return await container_subject(harbor)
    return await asyncio.to_thread(lambda: task_subject(load_code_task(harbor.folder)))


async def certificate_of(folder: Path) -> Certificate | None:
    """Out of our store. Raises CertificateError if it was edited; TaskError, SandboxError as `subject_of`."""
    return CertificateStore.default().get(await subject_of(read_harbor(folder)))


async def describe(folder: Path) -> list[str]:
    """What `trunkline tasks show` prints."""
    harbor = read_harbor(folder)
    lines = [f"{harbor.name}  {folder}", "", *harbor.instruction.strip().splitlines(), ""]
    refused = refusals(harbor)
    lines += [*(f"refused: {line}" for line in refused), *(f"notice: {line}" for line in notices(harbor))]
    if harbor.needs_image:
        lines.append("its workspace is in its image: it is certified and judged in containers, by its script; runs cannot take it yet")
        if refused:
            return lines
    try:
        certificate = await certificate_of(folder)
    except SandboxError as error:
        return [*lines, f"whether it has a certificate is unknown: {error}"]
    if certificate is None:
        return [*lines, f"no certificate in our store; trunkline tasks certify {folder}"]
    return [*lines, *_described(certificate)]


def _described(certificate: Certificate) -> Iterator[str]:
    yield f"certificate {certificate.key:.16}, attack corpus {certificate.attack_corpus_version:.16}"
    for check in certificate.checks:
        rate = f"{check.num_wrong + check.num_disagreeing} of {check.num_attempts} wrong"
        yield f"  must earn {check.earns}: {check.conduct:<48} {rate} (rate <= {check.residual_high:.2f})"
    calibration = calibration_of(certificate)
    if calibration is not None:
        yield f"  fail to pass: {', '.join(calibration.fail_to_pass)}"
        yield f"  pass to pass: {len(calibration.pass_to_pass)}; probes: {len(calibration.probes)} of {calibration.num_candidates} bite"
    yield from (f"  quarantined: {name}: {why}" for name, why in certificate.quarantined.items())
    yield from (f"  not tried: {name}: {why}" for name, why in certificate.not_instantiated.items())
    yield from (f"  not excluded: {words}" for words in certificate.not_excluded)


async def certify_all(folders: Sequence[Path], *, jobs: int, repeats: int, force: bool, on_step: OnStep, on_end: OnEnd) -> list[Outcome]:
    """Certifies what has no certificate yet, `jobs` at once; one that fails does not stop the others.

    Raises TaskError before any work if a folder is no task.
    """
    harbors = [read_harbor(folder) for folder in folders]
    hosted = {harbor.folder: load_code_task(harbor.folder) for harbor in harbors if not harbor.needs_image}
    gate = asyncio.Semaphore(jobs)

    async def one(harbor: HarborTask, place: _Place | None) -> Outcome:
        name = harbor.name
        async with gate:
            try:
                if not force and await _has_one(harbor):
                    on_end(name, f"has one   {name}")
                    return Outcome(name, "")
                if asked := refusals(harbor):
                    raise TaskError(f"{harbor.folder} asks for what cannot be given: {'; '.join(asked)}")
                trying = _Trying(repeats, lambda step, done, total: on_step(name, step, done, total))
                certificate = await (trying.in_containers(harbor) if place is None else trying.here(hosted[harbor.folder], place))
                CertificateStore.default().put(certificate)
            except TrunklineError as error:
                on_end(name, f"refused   {name}")
                return Outcome(name, str(error), tuple(notices(harbor)))
            on_end(name, f"certified {name}: {_summary(certificate)}")
            return Outcome(name, "", tuple(notices(harbor)))

    async with contextlib.AsyncExitStack() as stack:
        place = await stack.enter_async_context(verdict_place()) if hosted else None
        return list(await asyncio.gather(*(one(harbor, None if harbor.needs_image else place) for harbor in harbors)))


_Place = tuple[IsolatedSandboxes, VerdictPlace]


@dataclass(frozen=True)
class _Trying:
    """How tasks are put to the proof."""

    repeats: int
    on_step: Callable[[str, int, int], None]

    async def here(self, task: CodeTask, place: _Place) -> Certificate:
        require_corpus(task)
        self.on_step("its environment", 0, self.repeats)
        own = await place_of(task, place[0])
        return await certify_task(task, own, sandboxes=place[0], repeats=self.repeats, on_step=self.on_step)

    async def in_containers(self, harbor: HarborTask) -> Certificate:
        self.on_step("its image", 0, self.repeats)
        async with ContainerTask.open(harbor.folder, SandboxConfig(kind="container")) as opened:
            return await certify_container_task(opened, repeats=self.repeats, on_step=self.on_step)


async def _has_one(harbor: HarborTask) -> bool:
    """One that was edited is made again."""
    with contextlib.suppress(CertificateError):
        return await certificate_of(harbor.folder) is not None
    return False


def _summary(certificate: Certificate) -> str:
    attacks = [check for check in certificate.checks if check.earns == 0]
    calibration = calibration_of(certificate)
    words = [f"{len(attacks)} conducts earn 0", f"{len(certificate.not_instantiated)} attacks not tried"]
    if calibration is not None:
        words.append(f"{len(calibration.fail_to_pass)} tests fail to pass")
    if certificate.guessable:
        words.append("all that its tests expect can be guessed")
    if certificate.quarantined:
        words.append(f"{len(certificate.quarantined)} tests quarantined")
    return ", ".join(words)


@asynccontextmanager
async def verdict_place() -> AsyncIterator[tuple[IsolatedSandboxes, VerdictPlace]]:
    """Isolated sandboxes, for agents and sealed, with this Python's environment of verdicts."""
    environment = await asyncio.to_thread(verdict_environment)
    async with IsolatedSandboxes.open(SandboxConfig()) as sandboxes:
        yield sandboxes, VerdictPlace(sandboxes, environment)
