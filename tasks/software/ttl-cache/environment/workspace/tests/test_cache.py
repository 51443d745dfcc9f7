import unittest

from ttlcache import Cache


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class CacheTest(unittest.TestCase):
    def setUp(self):
        self.clock = Clock()
        self.cache = Cache(capacity=2, ttl=10, clock=self.clock)

    def test_a_value_is_found_again(self):
        self.cache.set("a", 1)
        self.assertEqual(self.cache.get("a"), 1)
        self.assertIsNone(self.cache.get("b"))
        self.assertEqual(self.cache.stats.hit_rate(), 0.5)

    def test_an_old_value_is_gone(self):
        self.cache.set("a", 1)
        self.clock.now += 10
        self.assertEqual(self.cache.get("a", "none"), "none")
        self.assertEqual(self.cache.stats.expirations, 1)

    def test_the_least_recently_used_entry_makes_room(self):
        self.cache.set("a", 1)
        self.cache.set("b", 2)
        self.cache.get("a")
        self.cache.set("c", 3)
        self.assertEqual(list(self.cache.keys()), ["a", "c"])
        self.assertEqual(self.cache.stats.evictions, 1)

    def test_a_capacity_of_nothing(self):
        with self.assertRaises(ValueError):
            Cache(capacity=0, ttl=1, clock=self.clock)


if __name__ == "__main__":
    unittest.main()
