"""Held-out calls of merge-trees: a random tree and two random edits of it to merge, compare, carry over and undo."""

LEAVES = [1, 2, "x", "y", None, [1], [1, 2], "", {}]


def tree(rng, depth):
    made = {}
    for key in rng.sample("abcde", rng.randrange(1, 5)):
        made[key] = tree(rng, depth - 1) if depth and rng.random() < 0.5 else rng.choice(LEAVES)
    return made


def edited(rng, given, depth=3):
    made = {}
    for key, value in given.items():
        choice = rng.random()
        if choice < 0.15:
            continue
        if isinstance(value, dict) and choice < 0.7:
            made[key] = edited(rng, value, depth - 1)
        else:
            made[key] = rng.choice(LEAVES) if choice > 0.75 else tree(rng, 1) if choice > 0.68 else value
    if rng.random() < 0.5:
        made[rng.choice("abcdef")] = rng.choice((*LEAVES, {"a": 1}, {"b": {"c": 2}}))
    return made


def calls(rng):
    for _ in range(26):
        base = tree(rng, 3)
        yield ("merge", base, edited(rng, base), edited(rng, base))
    for _ in range(8):
        base = tree(rng, 2)
        yield ("undo", base, edited(rng, base))
    for _ in range(6):
        base = tree(rng, 2)
        yield ("carry", base, edited(rng, base), edited(rng, base))


def ordered(value):
    """Dictionaries as sorted pairs: the order of keys doesn't count."""
    if isinstance(value, dict):
        return ("tree", [(key, ordered(value[key])) for key in sorted(value)])
    return value


def observe(call):
    import treediff

    def plain(value):
        return "-missing-" if value is treediff.MISSING else ordered(value)

    name, base, *sides = call
    if name == "merge":
        merge = treediff.merge(base, *sides)
        conflicts = [(found.path, plain(found.base), plain(found.ours), plain(found.theirs)) for found in merge.conflicts]
        return [ordered(merge.tree), conflicts, ordered(base), ordered(sides[0]), ordered(sides[1])]
    changes = treediff.diff(base, sides[0])
    if name == "undo":
        undone = treediff.invert(changes)
        return [[(change.path, plain(change.old), plain(change.new)) for change in undone], ordered(treediff.apply(sides[0], undone))]
    try:
        return [ordered(treediff.apply(sides[1], changes)), [str(change.path) + change.kind for change in changes]]
    except treediff.PatchError as error:
        return ("PatchError", error.path, error.reason)
