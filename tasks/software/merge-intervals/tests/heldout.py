"""Held-out calls of merge-intervals: random lists, many with an interval inside another, put to every public function."""


def some_intervals(rng, count):
    starts = [rng.randrange(-40, 60) for _ in range(count)]
    return [(start, start + rng.choice((0, 1, 2, 3, 5, 8, 13, 21))) for start in starts]


def with_nested(rng, count):
    start = rng.randrange(-50, 20)
    size = rng.randrange(12, 40)
    inner = start + rng.randrange(1, 6)
    intervals = [*some_intervals(rng, count), (start, start + size), (inner, inner + rng.randrange(1, 5))]
    rng.shuffle(intervals)
    return intervals


def calls(rng):
    for count in (0, 1, 2, 3, 5, 8):
        yield ("merge", some_intervals(rng, count))
    for count in (0, 0, 1, 2, 3, 4):
        yield ("merge", with_nested(rng, count))
    for count in (0, 1, 2, 4):
        first = rng.randrange(-60, 0)
        window = (first, first + rng.randrange(0, 100))
        yield ("clip", with_nested(rng, count), window)
        yield ("free", with_nested(rng, count), window)
        yield ("length", with_nested(rng, count))
        yield ("contains", with_nested(rng, count), rng.randrange(-50, 70))
    yield ("merge", [(3, 5), (rng.randrange(5, 9), 4)])
    yield ("clip", [(3, 5)], (rng.randrange(5, 9), 4))


def observe(call):
    import intervals

    name, given, *rest = call
    function = getattr(intervals, name)
    if name in ("clip", "free"):
        return function(given, window=rest[0])
    return function(given, *rest)
