"""Held-out calls of rolling-windows: random values for every function, and whether the comparisons stay few."""


def values(rng, count):
    if rng.random() < 0.3:
        return ["".join(rng.choices("abc", k=rng.randrange(0, 4))) for _ in range(count)]
    reach = rng.choice((3, 10, 1000))
    made = [rng.randrange(-reach, reach) for _ in range(count)]
    return rng.choice((made, made, sorted(made), sorted(made, reverse=True)))


def calls(rng):
    for name in ("rolling_max", "rolling_min", "rolling_median", "rolling_peaks", "windows"):
        for size in (1, 2, 3, 5, 8):
            yield (name, values(rng, rng.randrange(size, 30)), size)
        yield (name, values(rng, 3), 4)
        yield (name, [], 1)
        yield (name, values(rng, 3), 0)
    for name, most in (("rolling_max", 4), ("rolling_min", 4), ("rolling_median", 40)):
        for size in (40, 100, 150):
            yield ("few", name, values(rng, rng.randrange(2, 4) * size), size, most)


class Weighed:
    """A value that can only be compared, and counts how often it is."""

    def __init__(self, weight, counter):
        self.weight = weight
        self.counter = counter

    def _compared(self, other):
        self.counter.append(1)
        return (self.weight > other.weight) - (self.weight < other.weight)

    def __lt__(self, other):
        return self._compared(other) < 0

    def __le__(self, other):
        return self._compared(other) <= 0

    def __gt__(self, other):
        return self._compared(other) > 0

    def __ge__(self, other):
        return self._compared(other) >= 0

    def __eq__(self, other):
        return self._compared(other) == 0

    __hash__ = None


def observe(call):
    import rolling

    if call[0] != "few":
        name, given, size = call
        return list(getattr(rolling, name)(given, size))
    _, name, given, size, most = call
    counter = []
    found = getattr(rolling, name)([Weighed(weight, counter) for weight in given], size)
    return [[value.weight for value in found], len(counter) <= most * len(given)]
