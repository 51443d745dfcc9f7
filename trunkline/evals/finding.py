"""What one check of the doctor says. Owns verdicts and how a number is graded; knows no check."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["fault", "warning", "ok", "not measured"]
SEVERITY: tuple[Verdict, ...] = ("fault", "warning", "ok", "not measured")
"""Most important first."""


@dataclass(frozen=True)
class Limits:
    """Where a share or a level that should be low becomes a warning and a fault. `Limits(0.05, 0.3).as_text()`."""

    warning: float
    """Above it: a warning."""
    fault: float
    """Above it: a fault; infinity if the number alone never shows a fault."""
    unit: Literal["share", "number"] = "share"
    """Shares are printed as percentages."""

    def grade(self, value: float) -> Verdict:
        """A value at a limit is still on its good side; one that is not a number is a fault."""
        if not value <= self.fault:
            return "fault"
        return "warning" if value > self.warning else "ok"

    def as_text(self) -> str:
        """For the report, such as 'warning > 5%, fault > 30%'."""
        fault = "" if self.fault == float("inf") else f", fault > {self._text(self.fault)}"
        return f"warning > {self._text(self.warning)}{fault}"

    def _text(self, value: float) -> str:
        return percent(value) if self.unit == "share" else f"{value:g}"


@dataclass(frozen=True)
class Finding:
    """The answer of one check."""

    check: str
    """What was looked at, such as 'length cuts'."""
    verdict: Verdict
    """How bad it is."""
    measured: str
    """The number found, in words; why there is none if it was not measured."""
    threshold: str
    """What would have been worse or better."""
    cause: str
    """One sentence: why this keeps a policy from learning."""
    remedy: str
    """What to do, naming the knob of the recipe."""
    value: float | None = None
    """The number itself, where one number decides."""

    @property
    def is_trouble(self) -> bool:
        """True for warnings and faults."""
        return self.verdict in ("fault", "warning")

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def percent(share: float) -> str:
    """`percent(0.62) == "62%"`, `percent(0.004) == "0.4%"`: small shares keep a digit, so that few are not shown as none."""
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}".replace(".0%", "%")


def worse(first: Verdict, second: Verdict) -> Verdict:
    """The more severe of two verdicts."""
    return min(first, second, key=SEVERITY.index)
