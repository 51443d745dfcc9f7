"""Statistics of success rates. Owns intervals and comparisons; how episodes were sampled is the caller's."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from scipy.stats import binomtest, fisher_exact


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


def one_sided_p(successes: int, trials: int, *, base_successes: int, base_trials: int) -> float:
    """Probability of a difference at least this large if the first rate were not above the second (Fisher's exact test)."""
    table = [[successes, trials - successes], [base_successes, base_trials - base_successes]]
    return float(fisher_exact(table, alternative="greater").pvalue)
