"""Targets and what they need."""

from collections.abc import Iterable, Mapping

from buildorder.errors import UnknownTargetError


class Graph:
    """Which targets each target needs before it can be built itself."""

    def __init__(self, needs: Mapping[str, Iterable[str]]) -> None:
        """Raises UnknownTargetError for the alphabetically first target that is needed but isn't a key of `needs`."""
        self._needs = {target: frozenset(needed) for target, needed in needs.items()}
        missing = {target for needed in self._needs.values() for target in needed} - self._needs.keys()
        if missing:
            raise UnknownTargetError(min(missing))

    @property
    def targets(self) -> list[str]:
        """All targets, alphabetically."""
        return sorted(self._needs)

    def needs(self, target: str) -> list[str]:
        """What `target` needs directly, alphabetically; UnknownTargetError if it has no rule."""
        if target not in self._needs:
            raise UnknownTargetError(target)
        return sorted(self._needs[target])

    def closure(self, goals: Iterable[str]) -> "Graph":
        """The part of the graph that is needed for `goals`, them included."""
        waiting = list(goals)
        found: dict[str, list[str]] = {}
        while waiting:
            target = waiting.pop()
            if target not in found:
                found[target] = self.needs(target)
                waiting.extend(found[target])
        return Graph(found)
