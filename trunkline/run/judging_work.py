"""`trunkline tasks verify`: a verdict on some work as a run would give it. Owns where the work comes from; prints nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trunkline.errors import CertificateError, ConfigError
from trunkline.metrics.processes import ProcessMeter
from trunkline.protocols import Verifier
from trunkline.run.certifying import certificate_of, verdict_place
from trunkline.sandbox.config import SandboxConfig
from trunkline.tasks.formats.harbor import read_harbor
from trunkline.tasks.swe.calibration import Calibration, calibrate
from trunkline.tasks.swe.certify import calibration_of, stored_certificate
from trunkline.tasks.swe.container_task import ContainerTask
from trunkline.tasks.swe.inversion.verifier import InversionVerifier
from trunkline.tasks.swe.place import VerdictPlace, oracle_changes, place_of
from trunkline.tasks.swe.script_verifier import ScriptVerifier
from trunkline.tasks.swe.task import CodeTask, load_code_task
from trunkline.tasks.swe.verifier import CodeVerifier, Verdict
from trunkline.types import Command, FileChange, SealedRun, Work


@dataclass(frozen=True)
class WorkSource:
    """What is to be judged; with nothing set, the untouched workspace."""

    patch: Path | None = None
    """A unified diff; '-' is stdin."""
    workspace: Path | None = None
    """A folder as an agent left it."""
    is_oracle: bool = False
    """The task's own solution."""


@dataclass(frozen=True)
class Judged:
    """A verdict with what it cost."""

    task: str
    """The task's name."""
    is_certified: bool
    """Whether its certificate is in our store."""
    verdict: Verdict
    """Value, evidence, stages."""
    cpu_seconds: float
    """Of all processes."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person."""
        stages = [f"  {stage.name:<12} {stage.seconds:6.2f} s  {stage.words}" for stage in self.verdict.stages]
        certified = "certified" if self.is_certified else "NOT certified"
        return [
            f"reward {self.verdict.value:g}  {self.task} ({certified}; {self.cpu_seconds:.2f} CPU-seconds)",
            *stages,
            f"because: {self.verdict.evidence}",
        ]


async def verify_work(folder: Path, source: WorkSource, *, on_step: Callable[[str], None] = lambda words: None) -> Judged:
    """A verdict as a run would give it. Raises TaskError, VerifierError."""
    if read_harbor(folder).needs_image:
        return await _judged_in_container(folder, source, on_step)
    task = load_code_task(folder)
    certificate = stored_certificate(task)
    async with verdict_place() as (sandboxes, _):
        on_step("its environment")
        place = await place_of(task, sandboxes)
        if task.settings.verifier != "pytest":
            return await _judged_otherwise(task, source, place, is_certified=certificate is not None)
        calibration = None if certificate is None else calibration_of(certificate)
        known: Calibration = calibration or await calibrate(
            task, place, on_step=lambda words: on_step(f"no certificate, so calibrating: {words}")
        )
        on_step("judging")
        changes = await _changes(task, source, place)
        meter = ProcessMeter()
        before = meter.cpu_seconds()
        verdict = await CodeVerifier(task, known, place).judge(changes)
        return Judged(task.task_id, certificate is not None, verdict, meter.cpu_seconds() - before)


async def _judged_in_container(folder: Path, source: WorkSource, on_step: Callable[[str], None]) -> Judged:
    on_step("its image")
    async with ContainerTask.open(folder, SandboxConfig(kind="container")) as opened:
        is_certified = await _is_certified(folder)
        on_step("judging")
        oracle = await opened.oracle_changes()
        if source.is_oracle:
            changes = oracle
        else:
            async with verdict_place() as (_, place):
                changes = await _changes(opened.task, source, place)
        return await _judged(opened.verifier(oracle), opened.task, changes, is_certified=is_certified)


async def _is_certified(folder: Path) -> bool:
    with contextlib.suppress(CertificateError):
        return await certificate_of(folder) is not None
    return False


async def _judged_otherwise(task: CodeTask, source: WorkSource, place: VerdictPlace, *, is_certified: bool) -> Judged:
    changes = await _changes(task, source, place)
    if task.settings.verifier == "inversion":
        return await _judged(InversionVerifier.load(task, place), task, changes, is_certified=is_certified)
    paths = frozenset(change.path for change in await oracle_changes(task, place))
    judge = ScriptVerifier.load(task.folder, place.sandboxes, oracle_paths=paths, environment=place.script_environment)
    return await _judged(judge, task, changes, is_certified=is_certified)


async def _judged(judge: Verifier, task: CodeTask, changes: tuple[FileChange, ...], *, is_certified: bool) -> Judged:
    meter = ProcessMeter()
    before = meter.cpu_seconds()
    (reward,) = await judge.verify(Work("", changes))
    return Judged(task.task_id, is_certified, Verdict(reward.value, reward.evidence, ()), meter.cpu_seconds() - before)


async def _changes(task: CodeTask, source: WorkSource, place: VerdictPlace) -> tuple[FileChange, ...]:
    if source.is_oracle:
        return await oracle_changes(task, place)
    if source.patch is not None:
        text = sys.stdin.buffer.read() if str(source.patch) == "-" else await asyncio.to_thread(_read, source.patch)
        return await changes_of_patch(task, text, place)
    if source.workspace is not None:
        script = "find . -mindepth 1 -delete && cp -a /left/. ."
        command = Command.shell(script, timeout_s=task.settings.timeout_s)
        return await _changed_by(task, command, ((source.workspace.absolute(), "/left"),), place)
    return ()


async def changes_of_patch(task: CodeTask, patch: bytes, place: VerdictPlace) -> tuple[FileChange, ...]:
    """What a unified diff does to the pristine workspace; an empty one nothing. Raises ConfigError if it does not apply; SandboxError."""
    if not patch.strip():
        return ()
    command = Command(("patch", "-p1", "--no-backup-if-mismatch"), stdin=patch, timeout_s=task.settings.timeout_s)
    return await _changed_by(task, command, (), place)


async def _changed_by(task: CodeTask, command: Command, shown: tuple[tuple[Path, str], ...], place: VerdictPlace) -> tuple[FileChange, ...]:
    """What a trusted command does to the pristine workspace. Raises ConfigError if it fails."""
    result = await place.sandboxes.run_sealed(SealedRun(command, trees=(task.workspace,), shown=shown, keeps_changes=True))
    if result.command.status:
        words = (result.command.stdout + result.command.stderr).decode(errors="replace").strip()[-500:]
        raise ConfigError(f"the work cannot be laid over the workspace of {task.task_id}: {words}")
    return result.changes


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
