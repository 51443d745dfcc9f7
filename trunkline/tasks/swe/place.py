"""Where verdicts happen: sealed sandboxes with the environment of a verdict; and how a task's solution is obtained. Owns no judgement."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import TaskError, VerifierError
from trunkline.protocols import SealedSandboxes
from trunkline.tasks.environments.javascript.environment import JavaScriptEnvironment
from trunkline.tasks.environments.javascript.environment import environment_of as javascript_of
from trunkline.tasks.swe.environment import PythonEnvironment, ScriptEnvironment, environment_of
from trunkline.tasks.swe.task import CodeTask
from trunkline.tasks.swe.tree import lay_tree
from trunkline.types import Command, FileChange, SealedRun

_WORDS = 400


@dataclass(frozen=True)
class VerdictPlace:
    """What every process of a verdict runs in."""

    sandboxes: SealedSandboxes
    """Make the sandboxes."""
    environment: PythonEnvironment
    """Python, pytest and our programs in them."""
    javascript: JavaScriptEnvironment | None = None
    """Node and packages, of a task whose tests are JavaScript's."""

    @property
    def script_environment(self) -> ScriptEnvironment:
        """What the task's own script is shown, if it is judged by one."""
        return self.javascript or self.environment


async def place_of(task: CodeTask, sandboxes: SealedSandboxes) -> VerdictPlace:
    """With the task's own environment, which is made if it is not here yet. Raises TaskError, ConfigError, InfraError, SandboxError."""
    return VerdictPlace(sandboxes, await environment_of(task.folder, sandboxes), await javascript_of(task.folder, sandboxes))


async def oracle_changes(task: CodeTask, place: VerdictPlace) -> tuple[FileChange, ...]:
    """What the task's solution does to its workspace: solve.sh, run in a sealed sandbox with solution/ at /solution.

    Raises:
        TaskError: the script fails, or changes nothing.
        VerifierError: it took too long or spent a limit.
    """
    return await changes_by_solution(task, place.sandboxes, ("bash",))


async def changes_by_solution(task: CodeTask, sandboxes: SealedSandboxes, interpreter: tuple[str, ...]) -> tuple[FileChange, ...]:
    """The same, in any sealed sandboxes; `interpreter` is what reads the script there."""
    with tempfile.TemporaryDirectory(prefix="trunkline-oracle-") as folder:
        tree = Path(folder) / "workspace"
        await asyncio.to_thread(lay_tree, tree, pristine=task.workspace)
        result = await sandboxes.run_sealed(
            SealedRun(
                Command((*interpreter, "/solution/solve.sh"), timeout_s=task.settings.timeout_s),
                trees=(tree,),
                shown=((task.solution, "/solution"),),
                keeps_changes=True,
            )
        )
    ended, script = result.command, task.solution / "solve.sh"
    if ended.is_timeout or result.spent:
        why = result.spent or f"it took longer than {task.settings.timeout_s:g} s (timeout_s)"
        raise VerifierError(f"{script} was ended: {why}")
    if ended.status:
        words = (ended.stderr or ended.stdout).decode(errors="replace").strip()[-_WORDS:]
        raise TaskError(f"{script} ended with status {ended.status} on the pristine workspace: {words!r}; repair the script or its patch")
    if not result.changes:
        raise TaskError(f"{script} changes nothing of the workspace, so it solves nothing; it runs in /workspace, with /solution beside it")
    return result.changes
