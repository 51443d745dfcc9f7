"""Changes between neighbouring releases of packages; source and tests are in their archives. Owns the pairing; runs nothing of them.

index ─► final releases by version ─► neighbours, newest first ─► both archives ─► size, licence, changelog ─► Candidate
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from trunkline.errors import ConfigError
from trunkline.tasks.factory import npm_registry, registry
from trunkline.tasks.factory.archives import unpack
from trunkline.tasks.factory.candidate import Candidate, Rejected, Rejection, Side
from trunkline.tasks.factory.changelog import changelog_text
from trunkline.tasks.factory.language import Language
from trunkline.tasks.factory.licences import is_permissive, licence_of
from trunkline.tasks.factory.registry import Archive, Release
from trunkline.tasks.factory.selection import Size, check_change
from trunkline.tasks.factory.web import public

_NAMES = {
    "pypi": re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"),
    "npm": re.compile(r"(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*"),
}
_RELEASES_OF = {"pypi": registry.releases_of, "npm": npm_registry.releases_of}
_FETCH = {"pypi": registry.fetch, "npm": npm_registry.fetch}
_DESCRIPTION = re.compile(r"^Description:.*\n([ \t|].*\n)*", re.MULTILINE)
RELEASE_SIZE = Size(most_files=60, most_lines=3000)
"""A release brings more than a commit does."""


@dataclass(frozen=True)
class PackageRange:
    """Releases of one package. `PackageRange.parse("tomli==2.0.0..2.0.2")`."""

    registry: str
    """'pypi' or 'npm'."""
    package: str
    """As the registry knows it."""
    first: Version | None = None
    """The earliest state to start from; None: of all."""
    last: Version | None = None
    """The latest state to end at; None: of all."""

    @classmethod
    def parse(cls, text: str) -> PackageRange:
        """[pypi:|npm:]NAME, and behind it ==FIRST..LAST, ==FIRST.. or ==..LAST. Raises ConfigError."""
        registry, colon, rest = text.replace(" ", "").rpartition(":")
        registry = registry if colon else "pypi"
        name, equals, versions = rest.partition("==")
        first, dots, last = versions.partition("..")
        try:
            if registry not in _NAMES or not _NAMES[registry].fullmatch(name) or (equals and not (dots and (first or last))):
                raise InvalidVersion
            name = canonicalize_name(name) if registry == "pypi" else name
            return cls(registry, name, Version(first) if first else None, Version(last) if last else None)
        except InvalidVersion:
            raise ConfigError(
                f"{text!r} names no releases; write a package such as toolz or npm:semver, or a range such as toolz==0.11.0..0.11.2"
            ) from None

    def __str__(self) -> str:
        """As it is parsed."""
        bounds = f"=={self.first or ''}..{self.last or ''}" if self.first or self.last else ""
        return f"{self.registry}:{self.package}{bounds}"

    def id_of(self, before: Release, after: Release) -> str:
        """Of the candidate that a pair is."""
        name = self.package if self.registry == "pypi" else f"npm-{self.package.removeprefix('@').replace('/', '-')}"
        return re.sub(r"[^A-Za-z0-9._-]", "_", f"{name}-{before.version}-{after.version}")

    def has(self, version: Version) -> bool:
        """Whether it is in the range."""
        return (self.first is None or version >= self.first) and (self.last is None or version <= self.last)


class ReleaseSource:
    """Neighbouring releases of packages on the registries of this environment.

    >>> source = ReleaseSource(["toolz", "tomli==2.0.0..2.0.2"], [python], since=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    >>> [found async for found in source.candidates()]
    [Candidate("toolz-0.12.0-0.12.1", ...), ..., Rejected("toolz-0.10.0-0.11.0", "select", "changes no tests"), ...]
    """

    def __init__(
        self,
        packages: Sequence[str],
        languages: Sequence[Language],
        *,
        since: dt.datetime | None = None,
        limit: int | None = None,
        size: Size = RELEASE_SIZE,
        any_licence: bool = False,
    ) -> None:
        """Which pairs to look at.

        Args:
            packages: Names, or ranges of versions (PackageRange.parse).
            languages: Whose words for what is source and what is a test count.
            since: The later release must not be older.
            limit: Pairs of a package to look at, the newest; None: all.
            size: What is too large a change.
            any_licence: Take what is not under a licence known as permissive too.
        """
        self._ranges = tuple(PackageRange.parse(text) for text in packages)
        self._languages = tuple(languages)
        self._since = since
        self._limit = limit
        self._size = size
        self._any_licence = any_licence

    @property
    def name(self) -> str:
        """Of the packages."""
        return f"releases of {', '.join(given.package for given in self._ranges)}"

    def identity(self) -> Mapping[str, Any]:
        """The arguments. Not the registry's address: its mirrors serve the same archives, by their hashes."""
        return {
            "source": "releases",
            "packages": [str(given) for given in self._ranges],
            "since": self._since.isoformat() if self._since else None,
            "limit": self._limit,
            "size": [self._size.most_files, self._size.most_lines],
            "any_licence": self._any_licence,
        }

    async def candidates(self) -> AsyncIterator[Candidate | Rejected]:
        """Package by package, newest first. Raises ConfigError: no such package, or range; InfraError: the index does not answer."""
        for given in self._ranges:
            releases = await _RELEASES_OF[given.registry](given.package)
            found = neighbours([release for release in releases if given.has(release.version)])
            if not found and self._since is None:
                raise ConfigError(f"{given.package} has {len(releases)} releases with source archives, no two in the range; widen it")
            recent = [pair for pair in found if self._since is None or pair[1].uploaded >= self._since]
            for before, after in recent[: self._limit]:
                try:
                    yield await self._candidate(given, before, after)
                except Rejection as refused:
                    yield Rejected(given.id_of(before, after), refused.stage, refused.cause, refused.detail)

    async def lay(self, candidate: Candidate, side: Side, target: Path) -> None:
        """Unpacks the side's archive, from this host's cache if it is there. Raises Rejection (select), ConfigError, InfraError."""
        facts = candidate.facts
        archive = Archive(facts[f"{side}_file"], facts[f"{side}_url"], facts[f"{side}_digest"])
        archive_file = await _FETCH[candidate.project.partition("/")[0]](archive)
        await asyncio.to_thread(_lay, archive_file, target)

    async def _candidate(self, given: PackageRange, before: Release, after: Release) -> Candidate:
        archives = [await _FETCH[given.registry](release.archive) for release in (before, after)]
        with tempfile.TemporaryDirectory(prefix="trunkline-releases-") as scratch:
            trees = [Path(scratch) / side for side in ("before", "after")]
            for archive, tree in zip(archives, trees, strict=True):
                await asyncio.to_thread(_lay, archive, tree)
            return await asyncio.to_thread(self._examine, given, (before, after), (trees[0], trees[1]))

    def _examine(self, given: PackageRange, pair: tuple[Release, Release], trees: tuple[Path, Path]) -> Candidate:
        before, after = pair
        lines = changed_lines(*trees)
        if not any(language.role_of(path) == "test" for language in self._languages for path in _files(trees[1])):
            raise Rejection("select", "no tests in the archive", after.archive.filename)
        check_change(lines, self._languages, self._size)
        licence = licence_of(trees[1])
        if not self._any_licence and not is_permissive(licence):
            raise Rejection("select", "licence not permissive", licence)
        version = str(after.version)
        text = changelog_text(*trees, version)
        facts = {"licence": licence, **_facts_of_archive("before", before.archive), **_facts_of_archive("after", after.archive)}
        facts |= _told_by_metadata(trees[1])
        return Candidate(
            candidate_id=given.id_of(before, after),
            project=f"{given.registry}/{given.package}",
            before=str(before.version),
            after=version,
            date=after.uploaded,
            texts=(text,) if text else (),
            facts=facts,
        )


def neighbours(releases: Sequence[Release]) -> list[tuple[Release, Release]]:
    """Each release with the next lower version that was there when it came, newest first: a later fix of an old line is none of its past.

    `releases` are by version, lowest first.
    """
    pairs = []
    for index, after in enumerate(releases):
        earlier = [release for release in releases[:index] if release.uploaded < after.uploaded]
        if earlier:
            pairs.append((earlier[-1], after))
    return sorted(pairs, key=lambda pair: pair[1].uploaded, reverse=True)


def changed_lines(before: Path, after: Path) -> dict[str, int]:
    """Files that differ between two trees, and how many lines one of the two has and the other has not; 1 at least."""
    sides = [_files(tree) for tree in (before, after)]
    changed = {}
    for path in sorted(sides[0] | sides[1]):
        old, new = (_content(tree, path) if path in files else b"" for tree, files in zip((before, after), sides, strict=True))
        if old != new or (path in sides[0]) != (path in sides[1]):
            lost, gained = Counter(old.splitlines()), Counter(new.splitlines())
            changed[path] = max(1, (lost - gained).total() + (gained - lost).total())
    return changed


def _lay(archive: Path, target: Path) -> None:
    unpack(archive, target)
    metadata = target / "PKG-INFO"
    if metadata.is_file() and not metadata.is_symlink():
        # It repeats the README; builds that ask version control for a version need the headers.
        headers = _text(metadata).partition("\n\n")[0] + "\n"
        metadata.write_text(_DESCRIPTION.sub("", headers), encoding="utf-8")
    # Written by the build of the archive, and would tell of its files and of its version beside the environment's own metadata.
    for made in [*target.glob("*.egg-info"), *target.glob("*/*.egg-info")]:
        if made.is_dir() and not made.is_symlink():
            shutil.rmtree(made)


def _files(tree: Path) -> set[str]:
    """Regular files and links."""
    return {(Path(folder) / name).relative_to(tree).as_posix() for folder, _, names in os.walk(tree) for name in names}


def _content(tree: Path, path: str) -> bytes:
    place = tree / path
    return os.fsencode(place.readlink()) if place.is_symlink() else place.read_bytes()


def _facts_of_archive(side: Side, archive: Archive) -> dict[str, str]:
    return {f"{side}_file": archive.filename, f"{side}_url": public(archive.url), f"{side}_digest": archive.digest}


def _told_by_metadata(tree: Path) -> dict[str, str]:
    """What the package says of itself: its summary and where it lives."""
    told = HeaderParser().parsestr(_text(tree / "PKG-INFO"))
    named = dict(line.split(",", 1) for line in told.get_all("Project-URL", []) if "," in line)
    homes = (
        told.get("Home-page"),
        *(named[name] for name in sorted(named) if name.strip().lower() in ("homepage", "source", "repository")),
    )
    url = next((text.strip() for text in homes if text and "://" in text), "")
    summary = " ".join(str(told.get("Summary") or "").split())
    try:
        package = json.loads(_text(tree / "package.json") or "{}")
    except ValueError:
        package = {}
    if isinstance(package, dict):
        summary, url = summary or str(package.get("description") or ""), url or str(package.get("homepage") or "")
    return {name: text for name, text in (("summary", summary), ("url", url)) if text and text != "UNKNOWN"}


def _text(place: Path) -> str:
    return place.read_text(encoding="utf-8", errors="replace") if place.is_file() else ""
