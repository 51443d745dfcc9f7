"""Semantic versions: parsing, order, and requirements such as "^1.4 || >=3.0.0"."""

from pinpoint.requirement import Requirement
from pinpoint.version import Version, VersionError

__all__ = ["Requirement", "Version", "VersionError"]
