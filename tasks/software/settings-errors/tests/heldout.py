"""Held-out calls of settings-errors: random texts with comments and continued lines; most have one fault somewhere."""

NAMES = ["port", "host", "depth", "rate", "colour", "user", "path", "mode"]
VALUES = {
    "str": ["one", "two words", "", "a=b", "50%"],
    "int": ["0", "-17", "8080", "+4"],
    "float": ["2.5", "-0.25", "3", "1e3"],
    "switch": ["yes", "OFF", "true", "No"],
    "list": ["a", "a, b", "x,y , z,", ""],
}
WRONG = {"int": ["80x0", "2.5", "many", ""], "float": ["half", "1,5"], "switch": ["maybe", "2", ""]}


def fillers(rng):
    return rng.choices(["", "   ", "# note", "  # port = 1"], k=rng.randrange(0, 3))


def setting(rng, name):
    kind = rng.choice(list(VALUES))
    value = rng.choice(VALUES[kind])
    written = f"{name} = {value}" if kind == "str" and rng.random() < 0.6 else f"{name}: {kind} = {value}"
    if kind == "list" and rng.random() < 0.6:
        written += "p, \\\n  q" if value.endswith(",") else ", \\\n  p, \\\n  q"
    return written


def body(rng, names):
    lines = fillers(rng)
    for name in names:
        lines += [setting(rng, name), *fillers(rng)]
        if rng.random() < 0.2:
            lines += [f"[{rng.choice(('a', 'b.c', 'far'))}-{name}]", *fillers(rng)]
    return lines


def fault(rng, known):
    choice = rng.randrange(5)
    if choice == 0:
        return [f"{rng.choice(NAMES)} is missing \\", "  an equals sign"]
    if choice == 1:
        return [f"[fresh-{known}]", f"{known} = 1", *fillers(rng), f"{known}: int = 2"]
    if choice == 2:
        return [f"kind: {rng.choice(('number', 'bool', 'date'))} = 1"]
    kind = rng.choice(list(WRONG))
    return [f"wrong: {kind} = {rng.choice(WRONG[kind])}"]


def calls(rng):
    for _ in range(14):
        yield "\n".join(body(rng, rng.sample(NAMES, rng.randrange(0, 6))))
    for _ in range(28):
        names = rng.sample(NAMES, rng.randrange(1, 7))
        cut = rng.randrange(len(names))
        lines = [*body(rng, names[:cut]), *fault(rng, names[cut]), *body(rng, names[cut:])]
        yield "\n".join(lines) + rng.choice(("", "\n"))
    yield "a = 1\n" + "\n" * rng.randrange(1, 5) + "b \\"
    yield "a = 1\nb = 2 \\"


def observe(call):
    from plainconf import SettingsError, parse

    try:
        return parse(call)
    except SettingsError as error:
        return ("SettingsError", error.line, error.reason, str(error))
