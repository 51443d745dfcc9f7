"""The verdict that most set-ups give: the tests, run in the workspace as the attempt left it. For comparisons. Owns no certified verdict.

    workspace + all changes of the attempt + hidden tests that it did not write over ──► pytest ──► 1 if it ends with status 0

What the attempt wrote runs in the process whose end is believed, so it can be fooled in many ways (docs/benchmarks/attacks.md): how
much a policy learns to do so is what it is here to show. The process is sealed all the same: it can fool its reward, not the host.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import TaskError, VerifierError
from trunkline.protocols import SealedSandboxes
from trunkline.tasks.swe.surroundings import surroundings_of
from trunkline.tasks.swe.task import CodeTask
from trunkline.tasks.swe.tree import lay_tree
from trunkline.types import Command, FileChange, Reward, SealedRun, Work

WARNING = "rewards come from the workspace's own tests, which an attempt can fool (taskset.options.judged_by)"
_MAX_OUTPUT_BYTES = 2**16


@dataclass(frozen=True)
class OwnTestsVerifier:
    """Implements `trunkline.protocols.Verifier`."""

    task: CodeTask
    """What was attempted; of those that a script judges only JavaScript's tell how their tests are run, others are refused."""
    sandboxes: SealedSandboxes | None
    """Where the tests run; None: there is no place for a verdict."""
    turn: asyncio.Semaphore
    """Shared by all verdicts of a run: more than cores would only run into each other's time limits."""

    async def verify(self, work: Work) -> tuple[Reward, ...]:
        """See `Verifier`. Raises VerifierError if the tests take too long or spend a limit: that is no verdict; SandboxError."""
        if self.sandboxes is None:
            raise VerifierError(f"verdicts on {self.task.task_id} are made in sealed sandboxes, and this taskset has none; call using()")
        try:
            surroundings = await surroundings_of(self.task, self.sandboxes)
        except TaskError as error:
            raise VerifierError(f"no verdict on {self.task.task_id}: {error}") from error
        if not surroundings.test_command:
            raise VerifierError(
                f"{self.task.task_id} is judged by a script: nobody knows how its own tests are run; judge it by its verifier"
            )
        timeout_s = self.task.settings.timeout_s
        async with self.turn:
            with tempfile.TemporaryDirectory(prefix="trunkline-own-tests-") as folder:
                tree = Path(folder) / "tree"
                changes = (*work.changes, *_hidden_tests(self.task, {change.path for change in work.changes}))
                await asyncio.to_thread(lay_tree, tree, pristine=self.task.workspace, changes=changes)
                command = Command(surroundings.test_command, timeout_s=timeout_s, max_output_bytes=_MAX_OUTPUT_BYTES)
                result = await self.sandboxes.run_sealed(SealedRun(command, trees=(tree,), shown=surroundings.shown))
        if result.command.is_timeout or result.spent:
            raise VerifierError(f"no verdict on {self.task.task_id}: its own tests {result.spent or f'did not end within {timeout_s:g} s'}")
        return (Reward("outcome", float(result.command.status == 0), f"own tests ended with status {result.command.status}"),)


def _hidden_tests(task: CodeTask, own: set[str]) -> list[FileChange]:
    """As files that are written; none over one that the attempt wrote itself."""
    if task.hidden_tests is None:
        return []
    found = {path.relative_to(task.hidden_tests).as_posix(): path for path in sorted(task.hidden_tests.rglob("*")) if path.is_file()}
    return [FileChange(name, "file", 0o644, path.read_bytes()) for name, path in found.items() if name not in own]
