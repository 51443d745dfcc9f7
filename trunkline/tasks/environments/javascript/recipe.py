"""How an environment of npm packages is made, as plain values. Owns no resolution."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from trunkline.errors import TaskError

Runner = Literal["node", "vitest", "jest", "mocha", "files"]
"""What runs tests, with reports that can be read. `node` is Node's own, `node --test`; `files`: each file is one test, by its status."""
_NAME = re.compile(r"(@[a-z0-9][\w.\-~]*/)?[a-z0-9][\w.\-~]*", re.IGNORECASE)
_VERSION = re.compile(r"[\w.\-+^~<>=|*x ]{1,100}")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*", re.IGNORECASE)
_CLOSED = frozenset({"PATH", "HOME", "TMPDIR", "NODE_PATH", "LD_PRELOAD", "LD_LIBRARY_PATH"})


class JavaScriptRecipe(BaseModel):
    """Implements `trunkline.tasks.factory.language.Recipe`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lock: Literal["committed", "resolved", "none"] = Field(
        "resolved", description="committed: versions of the project's package-lock.json; none: there are no packages."
    )
    cutoff: dt.date | None = Field(None, description="Nothing published after this day; none: the newest that package.json allows.")
    runner: Runner = Field("node", description="What runs the tests.")
    runner_args: tuple[str, ...] = Field((), max_length=20, description="Its further arguments, those of the project's test script.")
    variables: dict[str, str] = Field({}, description="Of the environment that tests run in.")
    overrides: dict[str, str] = Field({}, description="Versions of packages, instead of package.json's.")
    scripts: bool = Field(False, description="Whether packages' own install scripts run, in the sandbox and without network.")

    @field_validator("overrides")
    @classmethod
    def _of_registry(cls, overrides: dict[str, str]) -> dict[str, str]:
        for name, version in overrides.items():
            if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
                raise ValueError(f"overrides are names of packages and ranges of versions, got {name!r}: {version!r}")
        return overrides

    @field_validator("variables")
    @classmethod
    def _harmless(cls, variables: dict[str, str]) -> dict[str, str]:
        for name in variables:
            if not _VARIABLE.fullmatch(name) or name.upper() in _CLOSED or name.upper().startswith(("TRUNKLINE", "NPM_CONFIG")):
                raise ValueError(f"variables may not set {name!r}")
        return variables

    @property
    def words(self) -> str:
        """See `Recipe`."""
        until = "" if self.cutoff is None else f" until {self.cutoff}"
        versions = {"committed": "npm packages of the committed lock", "resolved": f"npm packages{until}", "none": "no packages"}[self.lock]
        changed = f", {', '.join(f'{name}@{version}' for name, version in sorted(self.overrides.items()))}" if self.overrides else ""
        return f"{versions}{changed}{', install scripts run' * self.scripts}; {' '.join([self.runner, *self.runner_args])}"

    def fields(self) -> Mapping[str, Any]:
        """See `Recipe`: all of them, each is checked."""
        return self.model_dump(mode="json")

    def changed(self, fields: Mapping[str, Any]) -> Self:
        """See `Recipe`."""
        try:
            return self.model_validate({**self.fields(), **fields})
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise TaskError(f"no recipe has these fields ({faults}); known are {sorted(type(self).model_fields)}") from None
