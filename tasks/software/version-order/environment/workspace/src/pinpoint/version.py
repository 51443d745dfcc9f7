"""A single version, as in semver.org 2.0.0: MAJOR.MINOR.PATCH[-prerelease][+build]."""

import re
from dataclasses import dataclass
from functools import total_ordering

from pinpoint.precedence import comes_first

NUMBER = r"(0|[1-9][0-9]*)"
PATTERN = re.compile(rf"{NUMBER}\.{NUMBER}\.{NUMBER}(?:-([0-9A-Za-z.-]+))?(?:\+([0-9A-Za-z.-]+))?")


class VersionError(ValueError):
    """A text is no version or no requirement."""


@total_ordering
@dataclass(frozen=True, eq=False)
class Version:
    """A version. Versions that differ in their build only are equal: the build takes no part in the order."""

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()
    """The identifiers between "-" and "+", without the dots; () for a release."""
    build: tuple[str, ...] = ()
    """The identifiers after "+"."""

    @classmethod
    def parse(cls, text: str) -> "Version":
        """The version written in `text`; VersionError if it is none."""
        match = PATTERN.fullmatch(text)
        if match is None:
            raise VersionError(f"not a version: {text!r}")
        prerelease = tuple(match[4].split(".")) if match[4] else ()
        build = tuple(match[5].split(".")) if match[5] else ()
        if "" in prerelease or "" in build:
            raise VersionError(f"empty identifier in {text!r}")
        if any(part.isdigit() and part != "0" and part.startswith("0") for part in prerelease):
            raise VersionError(f"number with leading zero in {text!r}")
        return cls(int(match[1]), int(match[2]), int(match[3]), prerelease, build)

    def __str__(self) -> str:
        text = f"{self.major}.{self.minor}.{self.patch}"
        if self.prerelease:
            text += "-" + ".".join(self.prerelease)
        if self.build:
            text += "+" + ".".join(self.build)
        return text

    @property
    def release(self) -> tuple[int, int, int]:
        """The three numbers."""
        return self.major, self.minor, self.patch

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        return (self.release, self.prerelease) == (other.release, other.prerelease)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Version):
            return NotImplemented
        if self.release != other.release:
            return self.release < other.release
        if not self.prerelease or not other.prerelease:
            return bool(self.prerelease) and not other.prerelease
        return comes_first(self.prerelease, other.prerelease)

    def __hash__(self) -> int:
        return hash((self.release, self.prerelease))

    def bump(self, part: str) -> "Version":
        """The next release that raises `part`: "major", "minor" or "patch".

        A pre-release is raised to its own release if that is such a release: 2.0.0-rc.1 by any part is 2.0.0, 1.3.0-rc.1 is
        1.3.0 by "minor" or "patch", but 2.0.0 by "major".
        """
        if part not in ("major", "minor", "patch"):
            raise VersionError(f"part must be major, minor or patch, got {part!r}")
        is_reached = bool(self.prerelease)
        if part == "major":
            return Version(self.major if is_reached and not self.minor and not self.patch else self.major + 1, 0, 0)
        if part == "minor":
            return Version(self.major, self.minor if is_reached and not self.patch else self.minor + 1, 0)
        return Version(self.major, self.minor, self.patch if is_reached else self.patch + 1)
