"""Held-out calls of ttl-cache: random steps with a small cache, what each gave and how the cache ended."""


def random_steps(rng, length):
    steps = []
    for _ in range(length):
        key = rng.choice("abcdef")
        step = rng.choices(("set", "get", "wait", "delete", "purge", "in", "keys"), weights=(8, 5, 4, 1, 1, 1, 1))[0]
        if step == "set":
            steps.append(("set", key, rng.randrange(100), rng.choice((None, None, 2, 5, 40))))
        elif step == "wait":
            steps.append(("wait", rng.randrange(1, 6)))
        else:
            steps.append((step, key))
    return steps


def calls(rng):
    for _ in range(28):
        yield (rng.randrange(1, 5), rng.randrange(4, 15), random_steps(rng, rng.randrange(6, 40)))
    yield (0, 5, [])
    yield (3, 0, [])


def observe(call):
    from ttlcache import Cache

    now = [1000]
    capacity, ttl, steps = call
    cache = Cache(capacity, ttl, lambda: now[0])
    seen = []
    for name, *given in steps:
        if name == "wait":
            now[0] += given[0]
        elif name == "set":
            key, value, own_ttl = given
            cache.set(key, value) if own_ttl is None else cache.set(key, value, ttl=own_ttl)
        elif name == "purge":
            cache.purge()
        elif name == "in":
            seen.append(given[0] in cache)
        elif name == "keys":
            seen.append(list(cache.keys()))
        else:
            seen.append(getattr(cache, name)(given[0]))
    stats = cache.stats
    return [seen, list(cache.keys()), len(cache), stats.hits, stats.misses, stats.evictions, round(stats.hit_rate(), 9)]
