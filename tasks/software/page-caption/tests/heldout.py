"""Held-out calls of page-caption: first, middle and last pages, full and not, single items, pages that don't exist."""


def calls(rng):
    for _ in range(12):
        per_page = rng.randrange(2, 30)
        full = rng.randrange(0, 12)
        yield (full + 1, per_page, full * per_page + rng.randrange(1, per_page))
    for _ in range(4):
        per_page = rng.randrange(2, 30)
        full = rng.randrange(0, 12)
        yield (full + 1, per_page, full * per_page + 1)
    for _ in range(12):
        per_page = rng.randrange(1, 30)
        total = rng.randrange(per_page, 500)
        yield (rng.randrange(1, total // per_page + 1), per_page, total)
    per_page = rng.randrange(1, 30)
    yield (1, per_page, 0)
    yield (2, per_page, 0)
    yield (0, per_page, 100)
    yield (rng.randrange(101, 200), per_page, 100)


def observe(call):
    from page_caption import caption

    page, per_page, total = call
    return caption(page, per_page=per_page, total=total)
