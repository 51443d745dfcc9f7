"""Verdicts by Harbor's own script: tests/test.sh in a sealed run, its reward file read once all is dead. Owns no test and no hardening.

    pristine workspace + what may stay of the diff ─► sealed run of /tests/test.sh ─► /logs/verifier ─► reward.json | reward.txt

The script runs what the agent left, and whatever it runs can write the reward file. So this verdict is as good as the script: a task
whose author wants more says verifier = "pytest" (verifier.py), and what attacks get out of this one, its certificate tells.
"""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import TaskError, VerifierError
from trunkline.protocols import SealedSandboxes
from trunkline.tasks.formats.harbor import HarborTask, read_harbor
from trunkline.tasks.formats.harbor_config import EnvironmentConfig
from trunkline.tasks.formats.harbor_honoured import refusals, role_environment
from trunkline.tasks.formats.harbor_reward import read_reward
from trunkline.tasks.swe.allowed import Allowed, allow_changes
from trunkline.tasks.swe.environment import ScriptEnvironment
from trunkline.tasks.swe.task import TABLE, CodeSettings, read_settings
from trunkline.tasks.swe.tree import lay_tree
from trunkline.types import Command, FileChange, Reward, SandboxLimits, SealedResult, SealedRun, Work

OUTCOME = "reward"
"""The reward that is trained on; a script may name others, which are told in the evidence."""
_LOGS = "/logs/verifier"
_MEGABYTE = 2**20
_WORDS = 500
_MOST_NAMED = 3


@dataclass(frozen=True)
class ScriptVerifier:
    """Implements `trunkline.protocols.Verifier` for one task."""

    task: HarborTask
    """The task."""
    settings: CodeSettings
    """Its [metadata.trunkline]; those of an empty table if it has none."""
    workspace: Path
    """What the agent was given."""
    sandboxes: SealedSandboxes
    """Where the script runs."""
    oracle_paths: Collection[str] = frozenset()
    """What the task's solution changes."""
    environment: ScriptEnvironment | None = None
    """Shown to the script, so that `python3 -m pytest`, or `node`, works; None: its image has what it needs."""

    @classmethod
    def load(
        cls,
        folder: Path,
        sandboxes: SealedSandboxes,
        *,
        workspace: Path | None = None,
        oracle_paths: Collection[str] = frozenset(),
        environment: ScriptEnvironment | None = None,
    ) -> ScriptVerifier:
        """Of a task's folder. Without `workspace` the task names a folder of environment/. Raises TaskError."""
        task = read_harbor(folder)
        if asked := refusals(task):
            raise TaskError(f"{folder} asks for what cannot be given: {'; '.join(asked)}")
        settings = read_settings(folder, task.config.metadata)
        if workspace is None:
            if settings.workspace is None:
                raise TaskError(f"{folder}: its files are in its image alone; use containers, or set [metadata.{TABLE}] workspace")
            workspace = folder / "environment" / settings.workspace
        return cls(task, settings, workspace, sandboxes, oracle_paths, environment)

    async def verify(self, work: Work) -> tuple[Reward, ...]:
        """See `Verifier`: the reward called 'reward' as the outcome. Raises VerifierError, SandboxError."""
        allowed = await asyncio.to_thread(self._allowed, work.changes)
        result = await self._run(allowed.kept)
        rewards = read_script_reward(result, timeout_s=self.task.config.verifier.timeout_sec)
        evidence = "; ".join([", ".join(f"{name} {value:g}" for name, value in rewards.items()), *_words_of(allowed, result)])
        return (Reward("outcome", _outcome(rewards), evidence),)

    def _allowed(self, changes: tuple[FileChange, ...]) -> Allowed:
        """A task of others says nothing of where its solutions are, so they may be anywhere."""
        is_ours = TABLE in self.task.config.metadata
        return allow_changes(
            changes,
            pristine=self.workspace,
            oracle_paths=self.oracle_paths,
            globs=self.settings.allow if is_ours else ("*",),
            import_roots=self.settings.import_roots,
            reserved=self.environment.modules if self.environment is not None else frozenset(),
        )

    async def _run(self, kept: tuple[FileChange, ...]) -> SealedResult:
        with tempfile.TemporaryDirectory(prefix="trunkline-script-") as folder:
            tree, tests = Path(folder) / "workspace", Path(folder) / "tests"
            await asyncio.to_thread(lay_tree, tree, pristine=self.workspace, changes=kept)
            await asyncio.to_thread(_lay_tests, tests, self.task.folder / "tests")
            return await self.sandboxes.run_sealed(self._sealed(tree, tests))

    def _sealed(self, tree: Path, tests: Path) -> SealedRun:
        variables: dict[str, str] = {}
        shown: tuple[tuple[Path, str], ...] = ((tests, "/tests"),)
        if self.environment is not None:
            variables = dict(self.environment.script_variables)
            shown += self.environment.shown
        verifier = self.task.config.verifier
        return SealedRun(
            # By a shell, for a script without '#!' is one of the shell; in its place, for in a container it is then process 1, which nobody
            # inside can kill.
            Command.shell("exec /tests/test.sh", environment=variables | role_environment(verifier.env), timeout_s=verifier.timeout_sec),
            trees=(tree,),
            shown=shown,
            collects=_LOGS,
            limits=_limits(self.task.config.environment, None if self.environment is None else self.environment.limits),
        )


def read_script_reward(result: SealedResult, *, timeout_s: float) -> dict[str, float]:
    """The rewards that a script left. Raises VerifierError: it took too long, spent a limit, or left no number; its status says nothing."""
    if result.command.is_timeout:
        raise VerifierError(f"tests/test.sh took longer than {timeout_s:g} s; raise verifier.timeout_sec, or make it faster")
    if result.spent:
        raise VerifierError(f"tests/test.sh was ended: {result.spent}; raise environment.memory_mb or storage_mb, or let it use less")
    files = {change.path: change.content for change in result.collected if change.kind == "file"}
    try:
        return read_reward(files)
    except VerifierError as error:
        said = (result.command.stdout + result.command.stderr).decode(errors="replace").strip()[-_WORDS:]
        raise VerifierError(f"{error}; it ended with status {result.command.status} and said {said!r}") from error


def _outcome(rewards: dict[str, float]) -> float:
    if OUTCOME not in rewards:
        raise VerifierError(f"reward.json names {', '.join(map(repr, rewards))}, none of them {OUTCOME!r}, and that one is the outcome")
    if not 0 <= rewards[OUTCOME] <= 1:
        raise VerifierError(f"an outcome lies in 0..1, tests/test.sh gave {rewards[OUTCOME]:g}; scale it there")
    return rewards[OUTCOME]


def _words_of(allowed: Allowed, result: SealedResult) -> list[str]:
    said = (result.command.stdout or result.command.stderr).decode(errors="replace").strip()
    words = [f"tests/test.sh ended with status {result.command.status}" + (f" and said {said[-_WORDS:]!r}" if said else "")]
    if allowed.dropped:
        named = ", ".join(f"{dropped.path} ({dropped.reason})" for dropped in allowed.dropped[:_MOST_NAMED])
        words.append(f"{len(allowed.dropped)} changes left out: {named}{', ...' * (len(allowed.dropped) > _MOST_NAMED)}")
    return words


def _lay_tests(target: Path, tests: Path) -> None:
    """Whatever their modes are on this host: anyone can read them, and the script can be executed."""
    lay_tree(target, pristine=tests)
    (target / "test.sh").chmod(0o755)


def _limits(environment: EnvironmentConfig, default: SandboxLimits | None) -> SandboxLimits | None:
    """As the task says; what it leaves open is the default's. None: the backend's."""
    if not (environment.memory_mb or environment.storage_mb or environment.cpus):
        return default
    ours = default or SandboxLimits()
    return dataclasses.replace(
        ours,
        memory_bytes=environment.memory_mb * _MEGABYTE if environment.memory_mb else ours.memory_bytes,
        disk_bytes=environment.storage_mb * _MEGABYTE if environment.storage_mb else ours.disk_bytes,
        cpus=float(environment.cpus or ours.cpus),
    )
