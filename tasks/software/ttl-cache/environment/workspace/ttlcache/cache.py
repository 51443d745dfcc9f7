"""The cache itself: least recently used entries go first, and none lives longer than its time."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from ttlcache.stats import Stats


@dataclass(frozen=True)
class Entry:
    """A value and the moment from which on it no longer counts."""

    value: Any
    expires: float

    def is_live(self, now: float) -> bool:
        """Whether the entry still counts at `now`; at the very moment that it expires it doesn't."""
        return now < self.expires


class Cache:
    """Maps keys to values, at most `capacity` of them, each for `ttl` seconds after it was set.

    `clock` tells the time in seconds; it never goes back. An expired entry behaves as if it weren't there. To use an
    entry is to `get` or to `set` it; `in`, `keys` and `len` use nothing.
    """

    def __init__(self, capacity: int, ttl: float, clock: Callable[[], float]) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        if ttl <= 0:
            raise ValueError(f"ttl must be positive, got {ttl}")
        self.capacity = capacity
        self.ttl = ttl
        self.stats = Stats()
        self._clock = clock
        self._entries: OrderedDict[Hashable, Entry] = OrderedDict()

    def get(self, key: Hashable, default: Any = None) -> Any:
        """The value of `key`, or `default` if there is no live one."""
        entry = self._entries.get(key)
        if entry is not None and not entry.is_live(self._clock()):
            del self._entries[key]
            self.stats.expirations += 1
            entry = None
        if entry is None:
            self.stats.misses += 1
            return default
        self.stats.hits += 1
        self._entries.move_to_end(key)
        return entry.value

    def set(self, key: Hashable, value: Any, ttl: float | None = None) -> None:
        """Stores `value` for `key`, for `ttl` seconds if given.

        If a new key finds the cache full, the least recently used entry makes room.
        """
        now = self._clock()
        if key not in self._entries and len(self._entries) >= self.capacity:
            self._entries.popitem(last=False)
            self.stats.evictions += 1
        self._entries[key] = Entry(value, now + (self.ttl if ttl is None else ttl))

    def delete(self, key: Hashable) -> bool:
        """Removes `key`; whether there was a live entry."""
        entry = self._entries.pop(key, None)
        return entry is not None and entry.is_live(self._clock())

    def purge(self) -> int:
        """Removes all expired entries; how many they were."""
        now = self._clock()
        old = [key for key, entry in self._entries.items() if not entry.is_live(now)]
        for key in old:
            del self._entries[key]
        self.stats.expirations += len(old)
        return len(old)

    def keys(self) -> Iterator[Hashable]:
        """Keys of live entries, the least recently used first."""
        now = self._clock()
        return iter([key for key, entry in self._entries.items() if entry.is_live(now)])

    def __contains__(self, key: Hashable) -> bool:
        """Whether `key` has a live entry."""
        entry = self._entries.get(key)
        return entry is not None and entry.is_live(self._clock())

    def __len__(self) -> int:
        """How many live entries there are."""
        return len(list(self.keys()))
