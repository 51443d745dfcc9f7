"""Held-out calls of version-order: random versions to sort, compare, raise and require; texts that are none."""

WORDS = ["alpha", "beta", "rc", "a", "-", "x-1", "RC", "1a"]


def identifiers(rng):
    return ".".join(
        rng.choice(WORDS) if rng.random() < 0.45 else str(rng.choice((0, 1, 2, 9, 10, 11, 100))) for _ in range(rng.randrange(1, 4))
    )


def version(rng, release=None):
    text = release or ".".join(str(rng.choice((0, 0, 1, 2, 9, 10))) for _ in range(3))
    if rng.random() < 0.75:
        text += "-" + identifiers(rng)
    if rng.random() < 0.2:
        text += "+" + rng.choice(("b.1", "007", "x"))
    return text


def calls(rng):
    for count in range(4, 14):
        yield ("sort", [version(rng, rng.choice(("1.0.0", "1.0.0", "1.2.0"))) for _ in range(count)])
    for _ in range(10):
        yield ("compare", version(rng, "0.1.0"), version(rng, "0.1.0"))
    for _ in range(5):
        stem = "0.1.0-" + rng.choice(("rc.", "", "beta.x."))
        yield ("compare", stem + str(rng.randrange(2, 10)), stem + str(rng.randrange(10, 200)))
    for _ in range(8):
        first, second = version(rng, "3.1.0"), version(rng, "3.1.0")
        text = rng.choice((f">={first}", f">{first} <={second}", f"<{first}", f"^3 || ={second}", f"~3.1 || >={first} <3.2.0", f"^{first}"))
        yield ("best", text, [version(rng, rng.choice(("3.1.0", "3.1.0", "3.2.7"))) for _ in range(8)])
    for _ in range(6):
        yield ("bump", version(rng), rng.choice(("major", "minor", "patch")))
    for text in ("1.2", "1.2.3-" + str(rng.randrange(10)) + ".", "1.2.3-0" + str(rng.randrange(10)), "1.2.3+a..b"):
        yield ("bump", text, "patch")
    yield ("best", " || 1.0.0", [])
    yield ("bump", "1.0.0", "release")


def observe(call):
    from pinpoint import Requirement, Version

    name, given, *rest = call
    if name == "sort":
        return [str(found) for found in sorted(map(Version.parse, given))]
    if name == "compare":
        one, other = Version.parse(given), Version.parse(rest[0])
        return [one < other, one == other, one >= other, hash(one) == hash(other) if one == other else None]
    if name == "best":
        requirement = Requirement.parse(given)
        versions = [Version.parse(text) for text in rest[0]]
        best = requirement.best(versions)
        return [None if best is None else str(best).partition("+")[0], [requirement.allows(found) for found in versions]]
    found = Version.parse(given)
    return [str(found), found.prerelease, found.build, str(found.bump(rest[0]))]
