"""The lock of a Python environment: every file of it by its hash, in a file of a task. Owns no file and resolves nothing."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from trunkline.errors import TaskError
from trunkline.tasks.environments.identity import Identity

LOCK = "environment/python.toml"
"""In a task."""
_LAYOUT = 1
"""Raised when what is made of the same lock changes."""


class LockedFile(BaseModel):
    """A wheel or a source distribution."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", description="Of the package, normalised.")
    version: str = Field(description="Of the package.")
    url: str = Field(pattern=r"^https?://.+$", description="Where it was found.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of its content.")
    is_source: bool = Field(False, description="It has to be built.")

    @field_validator("url")
    @classmethod
    def _names_a_file(cls, url: str) -> str:
        if not re.fullmatch(r"[\w.+!-]+\.(whl|tar\.gz|tar\.bz2|zip|tgz)", PurePosixPath(unquote(urlsplit(url).path)).name):
            raise ValueError(f"{url} is the address of neither a wheel nor a source distribution")
        return url

    @property
    def file(self) -> str:
        """Its name."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name


class PythonLock(BaseModel):
    """What an environment consists of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: str = Field(pattern=r"^3\.\d{1,2}$", description="The interpreter, such as '3.9'; its last number is the host's.")
    project: Identity = Field(Identity(), description="The project itself, of which there is only the metadata.")
    variables: dict[str, str] = Field({}, description="That its tests run with.")
    files: tuple[LockedFile, ...] = Field(description="All packages, by name.")

    @property
    def packages_digest(self) -> str:
        """SHA-256 of the interpreter and the files, wherever they were found: locks of a project's versions mostly share them."""
        said = {"layout": _LAYOUT, "python": self.python, "files": [[one.file, one.sha256] for one in self.files]}
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    @property
    def digest(self) -> str:
        """SHA-256 of all that it says, but for where files were found."""
        said = self.model_dump(mode="json", exclude={"files"}) | {"packages": self.packages_digest}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def text(self) -> str:
        """As a file of a task."""
        said = self.model_dump(mode="json", exclude={"files"}, exclude_defaults=True)
        return tomli_w.dumps(said | {"files": [one.model_dump(exclude_defaults=True) for one in self.files]})

    @classmethod
    def read(cls, path: Path) -> PythonLock:
        """Raises TaskError, naming the file."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
            raise TaskError(f"{path} is no lock of a Python environment ({error}); write it again with the factory that made it") from None


def lock_of(folder: Path) -> PythonLock | None:
    """That of a task; None if it has none. Raises TaskError."""
    path = folder / LOCK
    return PythonLock.read(path) if path.is_file() else None
