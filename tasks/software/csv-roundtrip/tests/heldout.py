"""Held-out calls of csv-roundtrip: random fields full of quotes and line breaks, written and read in three dialects; faulty texts."""

DIALECTS = [(",", '"', "\n"), ("\t", '"', "\n"), (";", "'", "\r\n"), ("|", '"', "\r\n")]
PIECES = ["a", "bc", " ", '"', '""', "'", ",", ";", "\t", "|", "\n", "\r\n", "1", "x y"]


def field(rng):
    return "".join(rng.choices(PIECES, k=rng.randrange(0, 5)))


def rows(rng):
    return [[field(rng) for _ in range(rng.randrange(1, 5))] for _ in range(rng.randrange(1, 5))]


def plain_text(rng, delimiter):
    lines = [delimiter.join(rng.choice(("a", "", "b c", '5" x', "it's", "d")) for _ in range(3)) for _ in range(rng.randrange(1, 4))]
    return rng.choice(("\n", "\r\n")).join(lines) + rng.choice(("", "\n"))


def calls(rng):
    for dialect in DIALECTS:
        for _ in range(5):
            yield ("write", rows(rng), dialect)
        yield ("read", plain_text(rng, dialect[0]), dialect)
        delimiter, quote, _ = dialect
        tail = delimiter.join(("p", f"{quote}q{quote}{quote}{quote}", "r"))
        yield ("read", f"{quote}a\n{'b' * rng.randrange(4)}{delimiter}{quote}{delimiter}c\r\n\n{tail}", dialect)
        yield ("read", f"{quote}a\n\n{quote}\n" * rng.randrange(3) + f"b{delimiter}{quote}c{quote}d\ne\n", dialect)
        yield ("read", f"x{delimiter}{quote}y\n{quote}\n" * rng.randrange(3) + f"z{delimiter}{quote}open{quote}{quote}\nu\n", dialect)
    for _ in range(8):
        names = rng.sample(["id", "name", 'a "b"', "two\nlines", "x,y"], 3)
        if rng.random() < 0.3:
            names[2] = names[0]
        table = [[field(rng) for _ in range(3)] for _ in range(rng.randrange(0, 4))]
        if table and rng.random() < 0.4:
            table[-1].append(field(rng))
        yield ("records", [names, *table], DIALECTS[0])
    yield ("records", [], DIALECTS[0])
    yield ("write", [["a"], []], DIALECTS[0])


def observe(call):
    import dsv

    name, given, signs = call
    dialect = dsv.Dialect(*signs)
    try:
        if name == "read":
            return dsv.read(given, dialect)
        text = dsv.write(given, dialect)
        if name == "records":
            return [text, dsv.read_records(text, dialect)]
        return [text, dsv.read(text, dialect)]
    except dsv.DsvError as error:
        return ("DsvError", error.row, error.reason)
