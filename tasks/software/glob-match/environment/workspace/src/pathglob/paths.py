"""Patterns of whole paths."""

from pathglob.errors import PatternError
from pathglob.segments import match_segment


def match(pattern: str, path: str) -> bool:
    """Whether `pattern` fits the whole of `path`.

    Both are relative and parted by "/"; a wildcard never stands for a "/". Names that begin with a dot are names like all
    others. Raises PatternError for a pattern with an empty segment ("empty segment"), and ValueError for such a path.
    """
    wanted = pattern.split("/")
    if "" in wanted:
        raise PatternError(pattern, "empty segment")
    segments = split_path(path)
    return len(wanted) == len(segments) and all(map(match_segment, wanted, segments))


def split_path(path: str) -> list[str]:
    """The segments of `path`; ValueError if one is empty."""
    segments = path.split("/")
    if "" in segments:
        raise ValueError(f"path must be relative, without empty segments, got {path!r}")
    return segments
