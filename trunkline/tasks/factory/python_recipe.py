"""Recipes for environments of Python projects: the ladder of what is tried, and which fields a repair may change. Makes no environment.

the Python of the change's time, packages until the end of its month ─► a year later ─► our Python, packages of 2023 or of that
time if it is later ─► our Python, packages of today
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from trunkline.errors import TaskError
from trunkline.tasks.environments.interpreters import allows, era_interpreter, own_interpreter
from trunkline.tasks.environments.plugins import needed_by_arguments
from trunkline.tasks.environments.requirements import read_asked
from trunkline.tasks.environments.resolve import end_of_month

_LATER = dt.timedelta(days=365)
_OWN_FROM = dt.date(2023, 6, 30)
"""From when on what packages there were is ready for our Python."""
_VARIABLE = re.compile(r"(?!PYTHON|PYTEST|LD_|TRUNKLINE|PATH$|HOME$|TMPDIR$)[A-Z][A-Z0-9_]{0,60}")
_ARGUMENT = re.compile(r"-p|-o|-W|-m|no:[\w.-]+|[A-Za-z_][\w.]*(=[\w.,:/ -]*)?|-n0|-W[\w:. ]+|--[a-z][\w-]*(=[\w.,:/ -]*)?")
_NOT_ARGUMENTS = re.compile(r"--(co|collect-only|rootdir|confcutdir|import-mode|deselect|ignore|basetemp|pastebin|debug|trace|pdb)")


def _requirement(text: str) -> str:
    try:
        need = Requirement(text)
    except InvalidRequirement as error:
        raise ValueError(f"{text!r} is no requirement: {error}") from None
    if need.url:
        raise ValueError(f"{text!r} has an address; packages come from the index")
    return str(need)


def _argument(text: str) -> str:
    if not _ARGUMENT.fullmatch(text) or _NOT_ARGUMENTS.match(text):
        raise ValueError(f"{text!r} is no argument that a recipe may give to pytest")
    return text


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"{name!r} is no variable that a recipe may set")
    return name


Need = Annotated[str, AfterValidator(_requirement)]
Argument = Annotated[str, AfterValidator(_argument)]
Variable = Annotated[str, AfterValidator(_variable)]
Value = Annotated[str, Field(pattern=r"^[ -~]{0,200}$")]
Plugin = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.-]{0,80}$")]


class PythonRecipe(BaseModel):
    """How an environment of a Python project is made. Implements `trunkline.tasks.factory.language.Recipe`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: str = Field(pattern=r"^3\.\d{1,2}$", description="The interpreter, such as '3.9'.")
    cutoff: dt.date | None = Field(None, description="The last day whose packages count; none: today.")
    requirements: tuple[Need, ...] = Field((), max_length=200, description="What the project and its tests need, beside pytest.")
    pins: tuple[Need, ...] = Field((), max_length=200, description="Bounds on whatever else comes along.")
    plugins: tuple[Plugin, ...] | None = Field(
        None, max_length=40, description="Entry points of plugins of pytest; none: those of what is required, and of the project."
    )
    pytest_args: tuple[Argument, ...] = Field((), max_length=40, description="Further arguments of pytest.")
    variables: dict[Variable, Value] = Field({}, max_length=40, description="That the tests run with.")

    @property
    def words(self) -> str:
        """For people."""
        return f"Python {self.python}, packages until {self.cutoff:%Y-%m}" if self.cutoff else f"Python {self.python}, packages of today"

    def fields(self) -> Mapping[str, Any]:
        """See `Recipe`."""
        return self.model_dump(mode="json")

    def changed(self, fields: Mapping[str, Any]) -> PythonRecipe:
        """See `Recipe`."""
        try:
            return PythonRecipe.model_validate({**self.model_dump(), **fields})
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise TaskError(f"a recipe for Python cannot have {faults}; its fields are {', '.join(PythonRecipe.model_fields)}") from None


def ladder(tree: Path, date: dt.datetime) -> tuple[PythonRecipe, ...]:
    """What to try for a project as it was at a date, best first; nothing if no Python of this host may run it."""
    asked, needed = read_asked(tree), needed_by_arguments(tree)
    narrow = tuple(dict.fromkeys([*asked.dependencies, *asked.of_tests, *needed.requirements]))
    wide = tuple(dict.fromkeys([*narrow, *asked.of_extras]))
    rungs = ((python, cutoff, wide if is_wide else narrow) for python, cutoff, is_wide in _rungs(date.date(), asked.requires_python))
    return tuple(
        PythonRecipe(python=python, cutoff=cutoff, requirements=requirements, pytest_args=needed.arguments)
        for python, cutoff, requirements in dict.fromkeys(rungs)
    )


def _rungs(date: dt.date, requires_python: str) -> Iterator[tuple[str, dt.date | None, bool]]:
    """Python, cutoff, and whether all extras are wanted."""
    today = dt.datetime.now(dt.UTC).date()

    def until(day: dt.date) -> dt.date | None:
        return end_of_month(day) if end_of_month(day) < today else None

    era, own = era_interpreter(date, requires_python), own_interpreter()
    if era is not None:
        yield era.series, until(date), False
        yield era.series, until(date), True
        yield era.series, until(date + _LATER), True
    if allows(requires_python, own.version):
        yield own.series, until(max(date, _OWN_FROM)), True
        yield own.series, None, False
