"""Which of two pre-releases of the same three numbers comes first."""

Identifiers = tuple[str, ...]


def comes_first(one: Identifiers, other: Identifiers) -> bool:
    """Whether the pre-release with the identifiers `one` is lower than the one with `other`."""
    return one < other
