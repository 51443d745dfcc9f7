"""Which environments are tried for a JavaScript project, in order. Owns no resolution and no recipe's form."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from trunkline.tasks.environments.javascript.recipe import JavaScriptRecipe
from trunkline.tasks.factory.javascript.manifest import Manifest

_YEAR = dt.timedelta(days=365)


def ladder(manifest: Manifest, date: dt.datetime, *, has_lock: bool) -> list[JavaScriptRecipe]:
    """What to try, in order: the project's own lock, what there was at the end of the date's month, a year later, the newest.

    package.json's own ranges hold in each, so that the newest are those of the same major versions.
    """
    started = manifest.started()
    if started is None:
        return []
    common = {"runner": started.runner, "runner_args": started.args, "variables": _allowed(started.variables)}
    if not manifest.dependencies:
        return [JavaScriptRecipe.model_validate(common | {"lock": "none"})]
    end = _end_of_month(date.date())
    rungs: list[dict[str, Any]] = [{"cutoff": end}, {"cutoff": _end_of_month(end + _YEAR)}, {"cutoff": None}]
    return [JavaScriptRecipe.model_validate(common | rung) for rung in ([{"lock": "committed", "cutoff": end}] if has_lock else []) + rungs]


def _allowed(variables: Mapping[str, str]) -> dict[str, str]:
    """Those that a recipe may set."""
    kept: dict[str, str] = {}
    for name, value in variables.items():
        try:
            kept |= JavaScriptRecipe(variables={name: value}).variables
        except ValidationError:
            continue
    return kept


def _end_of_month(day: dt.date) -> dt.date:
    """So that neighbouring changes share what was resolved."""
    return (day.replace(day=28) + dt.timedelta(days=4)).replace(day=1) - dt.timedelta(days=1)
