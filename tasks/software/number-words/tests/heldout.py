"""Held-out calls of number-words: numbers of all sizes there and back, loosely written texts, texts that are no number."""

SMALL = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def below_hundred(rng):
    if rng.random() < 0.4:
        return [rng.choice(SMALL)]
    return rng.choice(([rng.choice(TENS)], [rng.choice(TENS), rng.choice(SMALL[:9])], [f"{rng.choice(TENS)}-{rng.choice(SMALL[:9])}"]))


def group(rng):
    choice = rng.randrange(4)
    if choice == 0:
        return below_hundred(rng)
    hundreds = [rng.choice(SMALL[:9]), "hundred"]
    return hundreds if choice == 1 else [*hundreds, *(["and"] if choice == 2 else []), *below_hundred(rng)]


def loose(rng):
    words = ["minus"] if rng.random() < 0.3 else []
    scales = [scale for scale in ("billion", "million", "thousand") if rng.random() < 0.5]
    for scale in scales:
        words += [*group(rng), scale]
    if not scales:
        return words + group(rng)
    return words + rng.choice(([], group(rng), ["and", *below_hundred(rng)]))


def written(rng, words):
    words = [rng.choice((word, word, word.upper(), word.capitalize())) for word in words]
    return rng.choice(("", " ")) + rng.choice((" ", "  ", "\n")).join(words)


def calls(rng):
    for size in range(1, 13):
        yield ("back", rng.choice((1, -1)) * rng.randrange(10 ** (size - 1), 10**size))
    for _ in range(14):
        yield ("read", written(rng, loose(rng)))
    for _ in range(18):
        words = loose(rng)
        place = rng.randrange(len(words) + 1)
        words[place : place + rng.randrange(0, 2)] = [
            rng.choice(("and", "hundred", "thousand", "zero", "minus", "oops", "million", *SMALL[:3], "six-ty"))
        ]
        yield ("read", written(rng, words))
    for text in ("", "minus", "zero", "two hundred and"):
        yield ("read", text)
    yield ("ordinal", rng.randrange(1, 100))
    yield ("ordinal", rng.randrange(100, 10**6))
    yield ("ordinal", 0)
    yield ("back", 10**12)


def observe(call):
    import numwords

    name, given = call
    if name == "ordinal":
        return numwords.to_ordinal(given)
    if name == "back":
        words = numwords.to_words(given)
        return [words, numwords.from_words(words)]
    try:
        return numwords.from_words(given)
    except numwords.WordsError as error:
        return ("WordsError", error.word)
