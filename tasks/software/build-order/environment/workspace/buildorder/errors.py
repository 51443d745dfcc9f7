"""Why there is no order."""


class BuildError(ValueError):
    """The rules can't be followed."""


class UnknownTargetError(BuildError):
    """A target that is needed has no rule; `target` is its name."""

    def __init__(self, target: str) -> None:
        super().__init__(f"no rule for {target}")
        self.target = target


class CycleError(BuildError):
    """Targets need each other in a circle."""

    def __init__(self) -> None:
        super().__init__("targets need each other")
