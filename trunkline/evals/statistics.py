"""Statistics of success rates. Owns intervals and comparisons; how episodes were sampled is the caller's."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from scipy.stats import binomtest


@dataclass(frozen=True)
class Proportion:
    """A success rate with its interval."""

    value: float
    """Successes over trials."""
    low: float
    """Lower end of the 95% Wilson score interval."""
    high: float
    """Upper end."""
    n: int
    """Trials."""

    def as_dict(self) -> dict[str, float]:
        """For summary.json."""
        return asdict(self)


def proportion(successes: int, trials: int) -> Proportion:
    """Success rate with a 95% Wilson score interval (Wilson 1927). `trials` >= 1."""
    interval = binomtest(successes, trials).proportion_ci(confidence_level=0.95, method="wilson")
    return Proportion(successes / trials, float(interval.low), float(interval.high), trials)
