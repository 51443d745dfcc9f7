"""Held-out calls of split-bill: bills that leave cents over, bills that don't, and ones that can't be split."""


def calls(rng):
    for people in range(1, 13):
        yield (rng.randrange(0, 200_000), people)
    for _ in range(12):
        people = rng.randrange(2, 40)
        yield (people * rng.randrange(1, 500) + rng.randrange(1, people), people)
    for _ in range(4):
        people = rng.randrange(2, 20)
        yield (people * rng.randrange(0, 900), people)
    yield (rng.randrange(1, 500), 0)
    yield (-rng.randrange(1, 500), 3)


def observe(call):
    from split_bill import split

    total_cents, people = call
    return split(total_cents, people)
