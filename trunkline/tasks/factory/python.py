"""Python as a language of the factory: recipes, environments, and tests run by the machinery of verdicts. Owns no package and no pytest.

tree, date ─► recipes ─► lock (environments) ─► packages ─► PythonBuilt ─► run_sheet (swe) ─► Results
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from trunkline.errors import TaskError, VerifierError
from trunkline.protocols import SealedSandboxes
from trunkline.tasks.environments import layout
from trunkline.tasks.environments.identity import read_identity
from trunkline.tasks.environments.install import Installed, install
from trunkline.tasks.environments.interpreters import interpreter_of
from trunkline.tasks.environments.lock import LOCK, PythonLock
from trunkline.tasks.environments.plugins import needed_by_arguments, plugins_of
from trunkline.tasks.environments.requirements import read_asked
from trunkline.tasks.environments.resolve import Unresolved, Wanted, resolve
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.language import Environment, Recipe, Results, Role
from trunkline.tasks.factory.python_recipe import PythonRecipe, ladder
from trunkline.tasks.swe.environment import PythonEnvironment, environment_from
from trunkline.tasks.swe.outcomes import TestRun
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.run_tests import run_sheet
from trunkline.tasks.swe.sheets import Sheet
from trunkline.tasks.swe.task import CodeSettings

_WORDS = 1500


@dataclass(frozen=True)
class PythonBuilt:
    """Implements `trunkline.tasks.factory.language.Environment`."""

    recipe: PythonRecipe
    """What it was made of."""
    lock: PythonLock
    """What it consists of."""
    python: PythonEnvironment
    """Interpreter and packages, as a verdict has them."""
    import_roots: tuple[str, ...]
    """Directories of the project from which modules are imported."""
    plugins: tuple[str, ...]
    """Of pytest, by their entry points."""

    def files(self) -> Mapping[str, str]:
        """See `Environment`."""
        return {LOCK: self.lock.text()}

    def settings(self) -> Mapping[str, Any]:
        """See `Environment`."""
        arguments = [argument for plugin in self.plugins for argument in ("-p", plugin)] + list(self.recipe.pytest_args)
        return {"import_roots": list(self.import_roots), **({"pytest_args": arguments} if arguments else {})}


@dataclass(frozen=True)
class PythonLanguage:
    """Implements `trunkline.tasks.factory.language.Language`."""

    sandboxes: SealedSandboxes
    """Where all that belongs to a project runs."""
    name: str = "python"
    """For people."""

    def role_of(self, path: str) -> Role:
        """See `Language`."""
        return layout.role_of(path)

    def speaks(self, tree: Path) -> bool:
        """See `Language`."""
        return layout.is_python(tree)

    def recipes(self, tree: Path, date: dt.datetime) -> Sequence[PythonRecipe]:
        """See `Language`."""
        return ladder(tree, date)

    async def build(self, recipe: Recipe, tree: Path) -> PythonBuilt:
        """See `Language`. Raises InfraError if packages cannot be fetched."""
        assert isinstance(recipe, PythonRecipe)
        asked = await asyncio.to_thread(read_asked, tree)
        try:
            interpreter = await asyncio.to_thread(interpreter_of, recipe.python)
            wanted = Wanted(interpreter, recipe.requirements, recipe.pins, recipe.cutoff, without=asked.name)
            files = await resolve(wanted)
            identity = await asyncio.to_thread(read_identity, tree, asked.name)
            lock = PythonLock(python=recipe.python, project=identity, variables=recipe.variables, files=files)
            installed = await install(lock, self.sandboxes)
        except Unresolved as error:
            raise Rejection("environment", "packages cannot be resolved", str(error)[-_WORDS:]) from None
        except TaskError as error:
            raise Rejection("environment", "packages cannot be installed", str(error)[-_WORDS:]) from None
        return await asyncio.to_thread(_built, recipe, installed, tree)

    async def run(self, environment: Environment, trees: Sequence[Path], files: Sequence[str], *, timeout_s: float) -> Results:
        """See `Language`."""
        assert isinstance(environment, PythonBuilt)
        wanted = tuple(files) or await asyncio.to_thread(_all_test_files, trees)
        if not wanted:
            return Results({}, "there is no test file")
        settings = CodeSettings.model_validate(environment.settings())
        place = VerdictPlace(self.sandboxes, environment.python)
        try:
            run = await run_sheet(place, Sheet({}, wanted, {}), trees=trees, settings=settings, timeout_s=timeout_s)
        except VerifierError as error:
            return Results({}, str(error))
        return _results(run)


def _built(recipe: PythonRecipe, installed: Installed, tree: Path) -> PythonBuilt:
    plugins = recipe.plugins
    if plugins is None:
        names = [Requirement(text).name for text in recipe.requirements]
        found = plugins_of(installed.packages, names, installed.lock.project)
        plugins = tuple(dict.fromkeys([*found, *needed_by_arguments(tree).plugins]))
    return PythonBuilt(recipe, installed.lock, environment_from(installed), layout.import_roots(tree), plugins)


def _results(run: TestRun) -> Results:
    outcomes = {name: outcome.outcome for name, outcome in run.outcomes.items()}
    durations = {name: outcome.seconds for name, outcome in run.outcomes.items()}
    return Results(outcomes, run.complaint, dict(run.faults), durations, run.result.command.seconds)


def _all_test_files(trees: Sequence[Path]) -> tuple[str, ...]:
    return tuple(sorted({file for tree in trees for file in layout.files_with_tests(tree)}))
