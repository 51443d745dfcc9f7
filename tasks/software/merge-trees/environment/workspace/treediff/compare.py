"""Finds the differences between two trees."""

from copy import deepcopy
from typing import Any

from treediff.changes import MISSING, Change, Path


def diff(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """What turns `old` into `new`, ordered by path.

    Where both have a dictionary, the differences are sought inside of it; a whole dictionary is added, removed or replaced
    if the other side has none there.
    """
    changes: list[Change] = []
    _compare(old, new, (), changes)
    return changes


def _compare(old: dict[str, Any], new: dict[str, Any], path: Path, changes: list[Change]) -> None:
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key, MISSING), new.get(key, MISSING)
        if isinstance(before, dict) and isinstance(after, dict):
            _compare(before, after, (*path, key), changes)
        elif before is MISSING or after is MISSING or before != after:
            changes.append(Change((*path, key), deepcopy(before), deepcopy(after)))
