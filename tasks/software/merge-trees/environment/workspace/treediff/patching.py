"""Carries changes over to a tree."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from treediff.changes import MISSING, Change, Path


class PatchError(ValueError):
    """A change doesn't fit the tree at `path`; `reason` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{'.'.join(path)}: {reason}")
        self.path = path
        self.reason = reason


def apply(tree: dict[str, Any], changes: Iterable[Change]) -> dict[str, Any]:
    """A copy of `tree` with `changes` made in their order.

    Raises PatchError if the value at a path isn't the `old` of the change: "is there already" if none should be there, "is
    not there" if one should, and "has another value"; and for a path through something that is no dictionary: "is not in a
    tree".
    """
    result = deepcopy(tree)
    for change in changes:
        place = result
        for key in change.path[:-1]:
            inner = place.get(key, MISSING)
            if not isinstance(inner, dict):
                raise PatchError(change.path, "is not in a tree")
            place = inner
        key = change.path[-1]
        found = place.get(key, MISSING)
        if found is MISSING and change.old is not MISSING:
            raise PatchError(change.path, "is not there")
        if found is not MISSING and change.old is MISSING:
            raise PatchError(change.path, "is there already")
        if found is not MISSING and found != change.old:
            raise PatchError(change.path, "has another value")
        if change.new is MISSING:
            del place[key]
        else:
            place[key] = deepcopy(change.new)
    return result
