"""A cache of bounded size whose entries grow old; the clock is given from outside."""

from ttlcache.cache import Cache
from ttlcache.stats import Stats

__all__ = ["Cache", "Stats"]
