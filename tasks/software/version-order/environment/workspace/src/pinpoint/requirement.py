"""Which versions will do."""

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pinpoint.version import Version, VersionError

SIGNS: dict[str, Callable[[Version, Version], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
CLAUSE = re.compile(r"(>=|<=|>|<|=|\^|~)?\s*(\S+)")
PARTIAL = re.compile(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?")


@dataclass(frozen=True)
class Bound:
    """A comparison with one version."""

    sign: str
    version: Version

    def allows(self, version: Version) -> bool:
        """Whether `version` stands on the right side of the bound."""
        return SIGNS[self.sign](version, self.version)


@dataclass(frozen=True)
class Requirement:
    """Alternatives, each a set of bounds that must all hold.

    Written as clauses parted by blanks (all must hold) and "||" (one side must hold). A clause is a version with a sign: the
    comparisons >=, <=, >, <, =; ^ for "the same up to the first number that isn't zero"; ~ for "the same minor version".
    After ^ and ~ the version may lack its last numbers, which count as zero. No sign means "=".
    """

    alternatives: tuple[tuple[Bound, ...], ...]

    @classmethod
    def parse(cls, text: str) -> "Requirement":
        """The requirement written in `text`; VersionError if it is none."""
        return cls(tuple(_bounds(part) for part in text.split("||")))

    def allows(self, version: Version) -> bool:
        """Whether `version` will do.

        A pre-release does only if an alternative that allows it names a pre-release of the same three numbers.
        """
        return any(_allows(bounds, version) for bounds in self.alternatives)

    def best(self, versions: Iterable[Version]) -> Version | None:
        """The highest of `versions` that will do; None if none does."""
        return max((version for version in versions if self.allows(version)), default=None)


def _allows(bounds: tuple[Bound, ...], version: Version) -> bool:
    if not all(bound.allows(version) for bound in bounds):
        return False
    named = [bound.version for bound in bounds if bound.version.prerelease]
    return not version.prerelease or any(other.release == version.release for other in named)


def _bounds(text: str) -> tuple[Bound, ...]:
    words = re.sub(r"(>=|<=|>|<|=|\^|~)\s+", r"\1", text).split()
    if not words:
        raise VersionError(f"empty requirement in {text!r}")
    bounds: list[Bound] = []
    for word in words:
        match = CLAUSE.fullmatch(word)
        if match is None:
            raise VersionError(f"not a requirement: {word!r}")
        sign, written = match[1] or "=", match[2]
        if sign in SIGNS:
            bounds.append(Bound(sign, Version.parse(written)))
            continue
        lowest = _completed(written)
        bounds.append(Bound(">=", lowest))
        bounds.append(Bound("<", _end_of(sign, lowest)))
    return tuple(bounds)


def _completed(text: str) -> Version:
    match = PARTIAL.fullmatch(text)
    return Version.parse(text) if match is None else Version(int(match[1]), int(match[2] or 0), int(match[3] or 0))


def _end_of(sign: str, version: Version) -> Version:
    if sign == "~" or (version.major == 0 and version.minor > 0):
        return Version(version.major, version.minor + 1, 0)
    if version.major == 0:
        return Version(0, 0, version.patch + 1)
    return Version(version.major + 1, 0, 0)
