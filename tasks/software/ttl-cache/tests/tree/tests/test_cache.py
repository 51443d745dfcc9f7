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

    def test_setting_a_value_again_uses_it(self):
        self.cache.set("a", 1)
        self.cache.set("b", 2)
        self.cache.set("a", 3)
        self.cache.set("c", 4)
        self.assertEqual(list(self.cache.keys()), ["a", "c"])
        self.assertEqual(self.cache.get("a"), 3)

    def test_an_expired_entry_makes_room_before_a_live_one(self):
        self.cache.set("a", 1, ttl=50)
        self.cache.set("b", 2)
        self.clock.now += 10
        self.cache.set("c", 3)
        self.assertEqual(self.cache.get("a"), 1)
        self.assertEqual(self.cache.get("c"), 3)
        self.assertEqual(self.cache.stats.evictions, 0)
        self.assertEqual(self.cache.stats.expirations, 1)

    def test_no_live_entry_is_evicted_when_an_expired_one_can_go(self):
        cache = Cache(capacity=3, ttl=10, clock=self.clock)
        for key, ttl in (("long", 99), ("short", 1), ("longer", 999)):
            cache.set(key, key.upper(), ttl=ttl)
        self.clock.now += 1
        cache.set("new", "NEW")
        self.assertEqual(list(cache.keys()), ["long", "longer", "new"])
        self.assertEqual(cache.stats.evictions, 0)

    def test_a_live_entry_still_goes_when_all_live(self):
        for key in "abc":
            self.cache.set(key, key)
            self.clock.now += 4
        self.assertEqual(self.cache.stats.evictions, 1)
        self.assertEqual(len(self.cache), 2)

    def test_an_expired_key_that_is_set_again_counts_as_new(self):
        self.cache.set("a", 1)
        self.cache.set("b", 2, ttl=30)
        self.clock.now += 15
        self.cache.set("a", 3)
        self.assertEqual(list(self.cache.keys()), ["b", "a"])
        self.assertEqual(self.cache.stats.expirations, 1)


if __name__ == "__main__":
    unittest.main()
