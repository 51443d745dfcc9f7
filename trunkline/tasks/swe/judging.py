"""Who judges the attempts of a run: one verifier a task, made at its first verdict and shared. Owns neither verdicts nor calibration.

first verdict on a task ─► certificate in our store? ─► its calibration
                                    └─ no ─► calibrate now (about a minute; only where the recipe may do without certificates)
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

from trunkline.errors import TaskError, VerifierError
from trunkline.protocols import SealedSandboxes, Verifier
from trunkline.tasks.swe.calibration import calibrate
from trunkline.tasks.swe.certify import calibration_of, stored_certificate
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.inversion.verifier import InversionVerifier
from trunkline.tasks.swe.place import oracle_changes, place_of
from trunkline.tasks.swe.script_verifier import ScriptVerifier
from trunkline.tasks.swe.seal import FolderSeal
from trunkline.tasks.swe.task import CodeTask
from trunkline.tasks.swe.verifier import CodeVerifier
from trunkline.types import Reward, Work


def num_at_once() -> int:
    """How many verdicts a run makes at the same time: one for each core that it has."""
    return max(1, len(os.sched_getaffinity(0)))


@dataclass
class Judges:
    """The verifiers of one run, and how many verdicts are made at once."""

    sandboxes: SealedSandboxes
    """Where they are made, each in its task's environment."""
    turn: asyncio.Semaphore
    """More verdicts than cores would only run into each other's time limits."""
    _turns: dict[str, asyncio.Lock] = field(default_factory=dict)
    _made: dict[str, Verifier] = field(default_factory=dict)

    @classmethod
    def over(cls, sandboxes: SealedSandboxes) -> Judges:
        """In these sandboxes, as many at once as there are cores. Raises ConfigError if pytest is not installed."""
        verdict_environment()
        return cls(sandboxes, asyncio.Semaphore(num_at_once()))

    async def of(self, task: CodeTask) -> Verifier:
        """The task's verifier. Raises TaskError, VerifierError, SandboxError, InfraError; the next who asks tries again."""
        async with self._turns.setdefault(task.task_id, asyncio.Lock()):
            if task.task_id not in self._made:
                self._made[task.task_id] = await self._make(task)
            return self._made[task.task_id]

    async def _make(self, task: CodeTask) -> Verifier:
        place = await place_of(task, self.sandboxes)
        if task.settings.verifier == "inversion":
            return InversionVerifier.load(task, place)
        if task.settings.verifier == "script":
            paths = frozenset(change.path for change in await oracle_changes(task, place))
            return ScriptVerifier.load(task.folder, self.sandboxes, oracle_paths=paths, environment=place.script_environment)
        certificate = await asyncio.to_thread(stored_certificate, task)
        calibration = None if certificate is None else calibration_of(certificate)
        return CodeVerifier(task, calibration or await calibrate(task, place), place)


@dataclass(frozen=True)
class Judge:
    """Implements `trunkline.protocols.Verifier` for one attempt."""

    task: CodeTask
    """What was attempted."""
    seal: FolderSeal
    """Of its folder."""
    judges: Judges | None
    """None: there is no place for a verdict."""

    async def verify(self, work: Work) -> tuple[Reward, ...]:
        """See `Verifier`. Raises VerifierError, also if the task's files were changed before the verdict was there; SandboxError."""
        if self.judges is None:
            raise VerifierError(f"verdicts on {self.task.task_id} are made in sealed sandboxes, and this taskset has none; call using()")
        async with self.judges.turn:
            try:
                rewards = await (await self.judges.of(self.task)).verify(work)
                await asyncio.to_thread(self.seal.require_whole)
            except TaskError as error:
                raise VerifierError(f"no verdict on {self.task.task_id}: {error}") from error
        return rewards
