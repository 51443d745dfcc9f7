"""A difference between two trees at one place.

A tree is a dictionary with texts as keys; its values are trees or leaves. Everything that is no dictionary is a leaf and is
compared as a whole.
"""

from dataclasses import dataclass
from typing import Any

Path = tuple[str, ...]


class _Missing:
    """The type of `MISSING`."""

    def __repr__(self) -> str:
        return "MISSING"

    def __copy__(self) -> "_Missing":
        return self

    def __deepcopy__(self, memo: dict) -> "_Missing":
        return self


MISSING = _Missing()
"""Stands for the value of a key that isn't there."""


@dataclass(frozen=True)
class Change:
    """At `path`, the value `old` becomes `new`; one of them may be MISSING."""

    path: Path
    old: Any
    new: Any

    @property
    def kind(self) -> str:
        """add, remove or replace."""
        if self.old is MISSING:
            return "add"
        return "remove" if self.new is MISSING else "replace"

    def __str__(self) -> str:
        place = ".".join(self.path)
        if self.kind == "add":
            return f"+ {place} = {self.new!r}"
        if self.kind == "remove":
            return f"- {place} = {self.old!r}"
        return f"~ {place} = {self.old!r} -> {self.new!r}"
