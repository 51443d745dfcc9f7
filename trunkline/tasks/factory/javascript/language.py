"""The factory's language JavaScript: projects with a package.json and a test runner that we can read. Owns no package and no report.

package.json ─► recipes: its own lock, its month, a year later, the newest ─► npm chooses, a sandbox installs ─► the project's runner
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from trunkline.errors import TaskError
from trunkline.protocols import SealedSandboxes
from trunkline.tasks.environments.javascript.environment import LIMITS, PROGRAMS, JavaScriptEnvironment
from trunkline.tasks.environments.javascript.install import install
from trunkline.tasks.environments.javascript.node import find_node
from trunkline.tasks.environments.javascript.recipe import JavaScriptRecipe
from trunkline.tasks.environments.javascript.resolve import resolve
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.javascript.ladder import ladder
from trunkline.tasks.factory.javascript.manifest import Manifest, read_manifest
from trunkline.tasks.factory.javascript.roles import files_to_run, is_run, role_of, source_patterns
from trunkline.tasks.factory.language import Ended, Environment, Recipe, Results, Role
from trunkline.types import Command, SealedResult, SealedRun

_LOCK = "package-lock.json"
_MAX_LOCK_BYTES = 2**24
_MAX_REPORT_BYTES = 2**24
_MAX_OUTPUT_BYTES = 2**16
_WORDS = 300


class _Report(BaseModel):
    """What run.mjs says."""

    outcomes: dict[str, Ended]
    faults: dict[str, str]
    durations: dict[str, float]
    complaint: str


class JavaScriptLanguage:
    """Implements `trunkline.tasks.factory.language.Language`."""

    name: str = "javascript"

    def __init__(self, sandboxes: SealedSandboxes) -> None:
        self._sandboxes = sandboxes

    def role_of(self, path: str) -> Role:
        """See `Language`."""
        return role_of(path)

    def speaks(self, tree: Path) -> bool:
        """See `Language`: it has a package.json that names a runner whose reports can be read."""
        try:
            manifest = read_manifest(tree)
        except TaskError:
            return False
        return manifest is not None and manifest.started() is not None

    def recipes(self, tree: Path, date: dt.datetime) -> Sequence[JavaScriptRecipe]:
        """See `Language`."""
        return ladder(_manifest_of(tree), date, has_lock=(tree / _LOCK).is_file())

    async def build(self, recipe: Recipe, tree: Path) -> JavaScriptEnvironment:
        """See `Language`."""
        assert isinstance(recipe, JavaScriptRecipe)
        node, manifest = await asyncio.to_thread(find_node), _manifest_of(tree)
        allow = await asyncio.to_thread(source_patterns, tree)
        if manifest.content.get("workspaces"):
            raise Rejection("environment", "several packages in one project", "package.json has workspaces")
        if not manifest.dependencies and not recipe.overrides:
            return JavaScriptEnvironment(recipe, node, None, allow=allow)
        if outside := manifest.outside():
            raise Rejection("environment", "packages from outside the registry", ", ".join(outside[:3]))
        text = manifest.to_resolve(recipe.overrides)
        committed = await asyncio.to_thread(_committed_lock, tree) if recipe.lock == "committed" else None
        try:
            lock = await resolve(node, text, cutoff=recipe.cutoff, committed=committed)
        except TaskError as error:
            raise Rejection("environment", "packages cannot be chosen", str(error)) from error
        if (own := str(manifest.content.get("name", ""))) in {package.name for package in lock.packages}:
            raise Rejection("environment", "the project is among its own packages", f"{own}: tests would run against a published version")
        try:
            packages = await install(node, text, lock, self._sandboxes, runs_scripts=recipe.scripts)
        except TaskError as error:
            raise Rejection("environment", "packages cannot be installed", str(error)) from error
        return JavaScriptEnvironment(recipe, node, packages, text, lock.text, allow)

    async def run(self, environment: Environment, trees: Sequence[Path], files: Sequence[str], *, timeout_s: float) -> Results:
        """See `Language`. Of the files those are run that are tests themselves; their helpers and data are not."""
        assert isinstance(environment, JavaScriptEnvironment)
        wanted = [path for path in files if is_run(path)] if files else await asyncio.to_thread(files_to_run, trees)
        if not wanted:
            return Results({}, "none of these files is a test that a runner is given")
        result = await self._sandboxes.run_sealed(
            SealedRun(
                Command(
                    ("node", f"{PROGRAMS}/run.mjs", json.dumps(run_options(environment.recipe, wanted))),
                    environment=environment.variables,
                    timeout_s=timeout_s,
                    max_output_bytes=_MAX_OUTPUT_BYTES,
                ),
                trees=tuple(trees),
                shown=environment.shown,
                max_report_bytes=_MAX_REPORT_BYTES,
                limits=LIMITS,
            )
        )
        return _results(result, timeout_s)


def run_options(recipe: JavaScriptRecipe, files: Sequence[str]) -> dict[str, Any]:
    """What run.mjs is told."""
    return {"runner": recipe.runner, "args": list(recipe.runner_args), "files": list(files)}


def _results(result: SealedResult, timeout_s: float) -> Results:
    ended = result.command
    said = (ended.stderr or ended.stdout).decode(errors="replace").strip()[-_WORDS:]
    if ended.is_timeout or result.spent:
        return Results({}, result.spent or f"out of time: more than {timeout_s:g} s", seconds=ended.seconds)
    if result.is_report_cut:
        return Results({}, f"its report has more than {_MAX_REPORT_BYTES:,} bytes", seconds=ended.seconds)
    try:
        report = _Report.model_validate_json(result.report)
    except ValidationError:
        return Results({}, f"no report, status {ended.status}: {said}", seconds=ended.seconds)
    complaint = report.complaint
    if not complaint and not report.outcomes and not report.faults:
        complaint = "no test was found in these files"
    complaint = f"{complaint}: {said}" if complaint and said else complaint
    return Results(report.outcomes, complaint, report.faults, report.durations, ended.seconds)


def _manifest_of(tree: Path) -> Manifest:
    try:
        manifest = read_manifest(tree)
    except TaskError as error:
        raise Rejection("environment", "no package.json that can be read", str(error)) from error
    if manifest is None:
        raise Rejection("environment", "no package.json that can be read", f"{tree.name} has none")
    return manifest


def _committed_lock(tree: Path) -> str:
    path = tree / _LOCK
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_LOCK_BYTES:
        raise Rejection("environment", "packages cannot be chosen", f"{_LOCK} is missing, or too large")
    return path.read_text("utf-8", errors="replace")
