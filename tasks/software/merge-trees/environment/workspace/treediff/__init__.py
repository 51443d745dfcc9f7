"""Compares nested dictionaries and carries the differences over to others."""

from treediff.changes import MISSING, Change
from treediff.compare import diff
from treediff.patching import PatchError, apply

__all__ = ["MISSING", "Change", "PatchError", "apply", "diff"]
