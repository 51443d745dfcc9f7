"""Chooses paths by patterns with wildcards; looks at texts only, never at a file system."""

from pathglob.errors import PatternError
from pathglob.paths import match
from pathglob.selection import Selection, select

__all__ = ["PatternError", "Selection", "match", "select"]
