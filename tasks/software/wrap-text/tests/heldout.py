"""Held-out calls of wrap-text: random words, widths and prefixes for wrap and justify, small documents for reflow."""

PREFIXES = ["", "", "- ", "  ", "> ", "Note: ", "      "]


def words(rng, count, longest=8):
    return ["abcdefghijklmnop"[: rng.randrange(1, longest + 1)] for _ in range(count)]


def document(rng):
    blocks = []
    for _ in range(rng.randrange(1, 5)):
        mark = rng.choice(("", "> ", "- "))
        blocks.append(mark + " ".join(words(rng, rng.randrange(1, 14), 10)))
        if rng.random() < 0.5 or not mark:
            blocks.append("")
    return "\n".join(blocks)


def calls(rng):
    for _ in range(12):
        yield ("wrap", " ".join(words(rng, rng.randrange(4, 16))), rng.randrange(9, 24), "", "")
    for _ in range(14):
        text = rng.choice((" ", "  ", "\n")).join(words(rng, rng.randrange(4, 16), 12))
        yield ("wrap", text, rng.randrange(9, 24), rng.choice(PREFIXES), rng.choice(PREFIXES))
    yield ("wrap", "a b", 6, "      ", "")
    yield ("wrap", "a b", 6, "", "Note: ")
    yield ("wrap", " ", 6, "- ", "")
    for _ in range(5):
        line = " ".join(words(rng, rng.randrange(1, 6)))
        yield ("justify", line, len(line) + rng.randrange(-2, 9))
    for _ in range(8):
        yield ("reflow", document(rng), rng.randrange(8, 30), rng.random() < 0.5)


def observe(call):
    import reflow

    name, text, width, *rest = call
    if name == "wrap":
        return reflow.wrap(text, width, first=rest[0], rest=rest[1])
    if name == "justify":
        return reflow.justify(text, width)
    return [reflow.reflow(text, width, is_justified=rest[0]), [(block.kind, block.text) for block in reflow.split_blocks(text)]]
