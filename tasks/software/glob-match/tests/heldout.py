"""Held-out calls of glob-match: random patterns of all signs on paths of few letters, selections, and patterns that can't be."""

SETS = ["[ab]", "[!a]", "[a-b]", "[!b-c]", "[]-]", "[c-]", "[b-a]", "[!]]"]
FAULTS = [("[ab", "set"), ("[]", "set"), ("{a,b", "open"), ("{a,{b}}", "nested"), ("/", "empty"), ("[!]", "set")]


def name(rng):
    return "".join(rng.choices("abc.-", weights=(4, 4, 3, 1, 1), k=rng.randrange(1, 5)))


def path(rng):
    return "/".join(name(rng) for _ in range(rng.randrange(1, 5)))


def wild(rng, word):
    signs = [rng.choice((sign, sign, "*", "?", "**", rng.choice(SETS))) for sign in word]
    return "".join(signs)


def pattern(rng, like):
    segments = [rng.choice((segment, wild(rng, segment), "*")) for segment in like.split("/")]
    for _ in range(rng.randrange(0, 2)):
        place = rng.randrange(len(segments) + 1)
        segments[place : place + rng.randrange(0, 3)] = ["**"]
    text = "/".join(segments)
    if rng.random() < 0.35:
        text = "{" + ",".join((text, name(rng), "**/" + name(rng))) + "}"
    elif rng.random() < 0.3:
        text += "{," + name(rng) + "," + wild(rng, name(rng)) + "/*}"
    return text


def calls(rng):
    for _ in range(36):
        like = path(rng)
        yield ("match", pattern(rng, like), [like, *(path(rng) for _ in range(7)), like + "/a", "b/" + like])
    for _ in range(10):
        paths = [path(rng) for _ in range(10)]
        patterns = [rng.choice(("", "", "!")) + pattern(rng, rng.choice(paths)) for _ in range(rng.randrange(1, 5))]
        yield ("select", patterns, paths)
    for fault, _ in rng.sample(FAULTS, 5):
        yield ("match", name(rng) + "/" + fault + rng.choice(("", "/x")), ["a", "a/b"])
    yield ("match", "*", ["a", "a//b"])


def observe(call):
    import pathglob

    name, given, paths = call
    try:
        if name == "match":
            return [pathglob.match(given, path) for path in paths]
        selection = pathglob.Selection.parse("\n".join(given))
        return [pathglob.select(given, paths), [selection.decided_by(path) for path in paths]]
    except pathglob.PatternError as error:
        return ("PatternError", error.pattern, error.reason)
