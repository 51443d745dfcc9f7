"""Counts what happens to a cache."""

from dataclasses import dataclass


@dataclass
class Stats:
    """Counters since the cache was made."""

    hits: int = 0
    """Calls of `get` that found a live entry."""
    misses: int = 0
    """Calls of `get` that did not."""
    evictions: int = 0
    """Live entries that had to go because the cache was full."""
    expirations: int = 0
    """Entries that were removed because they had grown too old."""

    def hit_rate(self) -> float:
        """Hits among all calls of `get`; 0.0 before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0
