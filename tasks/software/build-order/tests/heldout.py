"""Held-out calls of build-order: random graphs with and without cycles, ordered and staged, whole or for some goals."""

NAMES = ["api", "base", "cli", "core", "docs", "gen", "icons", "lib", "net", "proto", "tool", "ui"]


def acyclic(rng, count):
    names = rng.sample(NAMES, count)
    return {name: rng.sample(names[:place], min(place, rng.randrange(0, 4))) for place, name in enumerate(names)}


def with_cycle(rng, count, size):
    needs = acyclic(rng, count)
    ring = rng.sample(sorted(needs), size)
    for name, needed in zip(ring, [*ring[1:], ring[0]], strict=True):
        if needed not in needs[name]:
            needs[name].append(needed)
    return needs


def goals(rng, needs):
    return None if rng.random() < 0.5 else rng.sample(sorted(needs), rng.randrange(1, 4))


def rules(rng, needs):
    lines = [f"{name}: {' '.join(needed)}" + rng.choice(("", "  # note")) for name, needed in needs.items()]
    rng.shuffle(lines)
    return "\n\n".join(lines)


def calls(rng):
    for _ in range(10):
        needs = acyclic(rng, rng.randrange(3, 11))
        yield ("order", needs, goals(rng, needs))
        yield ("stages", needs, goals(rng, needs))
    for size in (1, 2, 2, 3, 3, 4, 5):
        needs = with_cycle(rng, rng.randrange(6, 12), size)
        yield ("order", needs, goals(rng, needs))
        yield ("stages", needs, goals(rng, needs))
    for _ in range(6):
        names = rng.sample(NAMES, 7)
        needs = {name: rng.sample(names, rng.randrange(1, 3)) for name in names}
        yield ("order", needs, None)
    for _ in range(3):
        yield ("rules", rules(rng, acyclic(rng, 6)), None)
    yield ("rules", "a: b\nb:\na: \n", None)
    yield ("order", {"a": ["zip", "yes", "a"]}, None)
    yield ("stages", {"a": []}, ["b"])


def observe(call):
    import buildorder

    name, given, wanted = call
    if name == "rules":
        return buildorder.order(buildorder.read_rules(given))
    graph = buildorder.Graph(given)
    try:
        return getattr(buildorder, name)(graph, wanted)
    except buildorder.CycleError as error:
        return ("CycleError", list(error.cycle), str(error))
