"""A language for tests of the factory: Python as it is, without packages, tests run by the verdicts' own machinery."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline.errors import TaskError, VerifierError
from trunkline.protocols import SealedSandboxes
from trunkline.tasks.environments import layout
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.language import Environment, Recipe, Results, Role
from trunkline.tasks.swe.environment import verdict_environment
from trunkline.tasks.swe.place import VerdictPlace
from trunkline.tasks.swe.run_tests import run_sheet
from trunkline.tasks.swe.sheets import Sheet
from trunkline.tasks.swe.task import CodeSettings


@dataclass(frozen=True)
class PlainRecipe:
    """Implements `Recipe`: one field, the directory that modules are imported from."""

    root: str = "."

    @property
    def words(self) -> str:
        return f"modules from {self.root}"

    def fields(self) -> Mapping[str, Any]:
        return {"root": self.root}

    def changed(self, fields: Mapping[str, Any]) -> PlainRecipe:
        if fields.keys() != {"root"}:
            raise TaskError(f"no such fields: {sorted(fields)}")
        return PlainRecipe(str(fields["root"]))


@dataclass(frozen=True)
class PlainEnvironment:
    """Implements `Environment`."""

    recipe: PlainRecipe = field(default_factory=PlainRecipe)
    more_files: Mapping[str, str] = field(default_factory=dict)

    def files(self) -> Mapping[str, str]:
        return self.more_files

    def settings(self) -> Mapping[str, Any]:
        return {"import_roots": [self.recipe.root], "timeout_s": 20}


@dataclass(frozen=True)
class PlainPython:
    """Implements `Language`; `roots` are its ladder, and a root that the project has not is an environment that does not build."""

    sandboxes: SealedSandboxes | None = None
    roots: Sequence[str] = (".",)
    name: str = "python"

    def role_of(self, path: str) -> Role:
        return layout.role_of(path)

    def speaks(self, tree: Path) -> bool:
        return True

    def recipes(self, tree: Path, date: dt.datetime) -> Sequence[PlainRecipe]:
        return tuple(map(PlainRecipe, self.roots))

    async def build(self, recipe: Recipe, tree: Path) -> PlainEnvironment:
        assert isinstance(recipe, PlainRecipe)
        if not (tree / recipe.root).is_dir():
            raise Rejection("environment", "packages cannot be installed", f"there is no directory {recipe.root}")
        return PlainEnvironment(recipe)

    async def run(self, environment: Environment, trees: Sequence[Path], files: Sequence[str], *, timeout_s: float) -> Results:
        assert self.sandboxes is not None
        place = VerdictPlace(self.sandboxes, verdict_environment())
        settings = CodeSettings.model_validate(environment.settings())
        try:
            run = await run_sheet(place, Sheet({}, tuple(files), {}), trees=trees, settings=settings, timeout_s=timeout_s)
        except VerifierError as error:
            return Results({}, str(error), seconds=timeout_s)
        outcomes = {name: outcome.outcome for name, outcome in run.outcomes.items()}
        durations = {name: outcome.seconds for name, outcome in run.outcomes.items()}
        return Results(outcomes, run.complaint, dict(run.faults), durations, run.result.command.seconds)
