"""What can be wrong with a pattern."""


class PatternError(ValueError):
    """`pattern` can't be used; `reason` says why."""

    def __init__(self, pattern: str, reason: str) -> None:
        super().__init__(f"{pattern!r}: {reason}")
        self.pattern = pattern
        self.reason = reason
