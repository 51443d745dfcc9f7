"""Lists of patterns, some of which take back what others chose."""

from collections.abc import Iterable
from dataclasses import dataclass

from pathglob.paths import match


@dataclass(frozen=True)
class Selection:
    """Patterns in order. One that begins with "!" excludes; the last that fits a path decides, and none means no."""

    patterns: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Selection":
        """The patterns in `text`, one a line; blank lines and those that begin with "#" don't count."""
        lines = (line.strip() for line in text.splitlines())
        return cls(tuple(line for line in lines if line and not line.startswith("#")))

    def includes(self, path: str) -> bool:
        """Whether `path` is chosen."""
        return self.decided_by(path) not in (None, "!")

    def decided_by(self, path: str) -> str | None:
        """The pattern that decides about `path`; "!" if it excludes it, None if no pattern fits."""
        for pattern in reversed(self.patterns):
            if match(pattern.removeprefix("!"), path):
                return "!" if pattern.startswith("!") else pattern
        return None


def select(patterns: Iterable[str], paths: Iterable[str]) -> list[str]:
    """Those of `paths` that are chosen, in their order."""
    selection = Selection(tuple(patterns))
    return [path for path in paths if selection.includes(path)]
