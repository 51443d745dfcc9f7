"""An environment whose task directory has more files and settings: how a variant brings what only its own verdict needs. Builds nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trunkline.tasks.factory.language import Environment, Recipe


@dataclass(frozen=True)
class WithMore:
    """Implements `Environment`. To be written, not to be run in: a language runs tests in its own environments alone."""

    inner: Environment
    """What its tests run in."""
    more_files: Mapping[str, str]
    """Path in the task to text; these win."""
    more_settings: Mapping[str, Any]
    """Fields of [metadata.trunkline]; these win."""

    @property
    def recipe(self) -> Recipe:
        """That of the inner one."""
        return self.inner.recipe

    def files(self) -> Mapping[str, str]:
        """See `Environment`."""
        return {**self.inner.files(), **self.more_files}

    def settings(self) -> Mapping[str, Any]:
        """See `Environment`."""
        return {**self.inner.settings(), **self.more_settings}
