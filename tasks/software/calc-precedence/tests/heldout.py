"""Held-out calls of calc-precedence: random expressions, spaced at random, and expressions with a fault somewhere."""

NAMES = {"x": 3, "size": 12, "y_2": -2}


def operand(rng, depth):
    choice = rng.random()
    if depth > 0 and choice < 0.25:
        return ["(", *expression(rng, depth - 1), ")"]
    if depth > 0 and choice < 0.35:
        return [rng.choice(("min", "max")), "(", *expression(rng, depth - 1), ",", *expression(rng, 0), ")"]
    if depth > 0 and choice < 0.45:
        return [rng.choice(("abs", "floor")), "(", *expression(rng, depth - 1), ")"]
    return [rng.choice(list(NAMES))] if choice < 0.6 else [rng.choice(("0", "1", "2", "3", "7", "0.5", "2.25"))]


def power(rng, depth):
    base = rng.choice((["2"], ["x"], ["y_2"], ["(", "-", "3", ")"], ["0.5"]))
    shape = rng.randrange(5)
    if shape == 0:
        return ["-", *base, "**", rng.choice(("2", "3", "4"))]
    if shape == 1:
        return [*base, "**", rng.choice(("2", "3")), "**", rng.choice(("0", "2", "3"))]
    if shape == 2:
        return [*base, "**", "-", rng.choice(("1", "2", "3"))]
    if shape == 3:
        return ["-", *base, "**", "-", "2", "**", "2"]
    return operand(rng, depth)


def expression(rng, depth):
    parts = power(rng, depth)
    for _ in range(rng.randrange(0, 4)):
        parts += [rng.choice(("+", "-", "*", "/", "%", "-")), *power(rng, depth)]
    return parts


def harmless(rng):
    parts = [rng.choice(("1", "size", "2.5"))]
    for _ in range(rng.randrange(0, 4)):
        parts += [rng.choice(("+", "-", "*")), *rng.choice((["-", "x"], ["7"], ["2", "**", "3"]))]
    return parts


def spaced(rng, parts, gaps):
    return rng.choice(("", "", "  ")) + "".join(part + rng.choice(gaps) for part in parts)


def calls(rng):
    for _ in range(30):
        yield ("evaluate", spaced(rng, expression(rng, 2), ("", " ")))
    for _ in range(12):
        fault = rng.choice(
            (["1", "/", "0"], ["2", "?"], ["2", ")"], ["unknown"], ["min", "(", "1", ")"], ["2", "**", "0.5"], ["*"], ["(", ")"])
        )
        parts = [*harmless(rng), "+", *fault, "-", *harmless(rng)]
        yield ("evaluate", spaced(rng, parts, (" ", "  ", "\n", "\t ")))
    for _ in range(6):
        yield ("tokenize", spaced(rng, expression(rng, 1), ("", " ", "   ", "\t", "\n\n")))


def observe(call):
    import abacus

    name, text = call
    try:
        if name == "tokenize":
            return [(token.kind, token.text, token.column) for token in abacus.tokenize(text)]
        return str(abacus.evaluate(text, NAMES))
    except abacus.CalcError as error:
        return ("CalcError", error.column, error.reason)
