"""What `trunkline tasks mine SOURCE` may be told, and the source it means. Owns the words; each source is a file of its own.

FOLDER                   a local git clone
pypi:NAME[==A..B] ...    neighbouring releases of packages of the registry
github:OWNER/NAME        merged pull requests; with a clone, trees come from it
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trunkline.errors import ConfigError
from trunkline.tasks.factory.candidate import Source
from trunkline.tasks.factory.git_source import GitSource
from trunkline.tasks.factory.github_api import GithubAccess
from trunkline.tasks.factory.github_source import GithubSource
from trunkline.tasks.factory.language import Language
from trunkline.tasks.factory.release_source import ReleaseSource

_PACKAGES, _GITHUB = ("pypi:", "npm:"), "github:"


@dataclass(frozen=True)
class SourceWords:
    """What a source is made of; plain, so that workers make the same."""

    words: tuple[str, ...]
    """One folder, one github:OWNER/NAME, or any number of pypi:NAME and npm:NAME."""
    project: str = ""
    """Name of a clone's project, where it does not say itself."""
    since: dt.datetime | None = None
    """Older changes are left out."""
    only_fixes: bool = False
    """Only changes that say that they mend something; releases do not say."""
    clone: str = ""
    """Of a GitHub project: a local clone that its trees come from; '': downloaded."""

    def open(self, languages: Sequence[Language], *, told: Callable[[str], None] = lambda words: None) -> Source:
        """The source, which says in a line to `told` what it waits for.

        Raises ConfigError for words that mean none, with those that would.
        """
        kinds = {_kind(word) for word in self.words}
        if len(kinds) != 1 or (kinds != {"package"} and len(self.words) > 1):
            raise ConfigError(
                f"SOURCE is one clone, one github:OWNER/NAME, or any number of pypi:NAME and npm:NAME; got {' '.join(self.words)!r}"
            )
        word, (kind,) = self.words[0], kinds
        if self.clone and kind != "github":
            raise ConfigError(f"--clone says where the trees of a github: source come from, and {word!r} is none")
        if self.only_fixes and kind == "package":
            raise ConfigError("--only-fixes is for commits and pull requests; a release has no subject that says what it mends")
        if kind == "package":
            return ReleaseSource(list(self.words), languages, since=self.since)
        if kind == "github":
            clone = Path(self.clone) if self.clone else None
            name, access = word.removeprefix(_GITHUB), github_access(told)
            return GithubSource(name, languages, access=access, clone=clone, since=self.since, only_fixes=self.only_fixes)
        return GitSource(Path(word), languages, project=self.project, since=self.since, only_fixes=self.only_fixes)


def github_access(told: Callable[[str], None]) -> GithubAccess:
    """How GitHub is reached; `told` hears what is waited for, until when by this host's clock."""

    def on_wait(why: str, seconds: float) -> None:
        until = dt.datetime.now().astimezone() + dt.timedelta(seconds=seconds)
        told(f"waiting until {until:%H:%M:%S} for GitHub: {why}")

    return GithubAccess(on_wait=on_wait)


def _kind(word: str) -> str:
    if word.startswith(_PACKAGES):
        return "package"
    return "github" if word.startswith(_GITHUB) else "clone"
