"""What goes wrong in a settings text, with the place where it does."""


class SettingsError(ValueError):
    """The text is not right at one place.

    `line` is the number of the line in the text, from 1, where the faulty entry begins; `reason` says in words what is
    wrong.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason
