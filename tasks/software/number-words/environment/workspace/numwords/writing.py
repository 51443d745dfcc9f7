"""From numbers to words."""

from numwords.vocabulary import LIMIT, SCALES, SMALL, TENS


def to_words(number: int) -> str:
    """`number` in words: 1234 is "one thousand two hundred thirty-four", -5 is "minus five".

    Raises ValueError beyond plus or minus 999,999,999,999.
    """
    if abs(number) >= LIMIT:
        raise ValueError(f"number must be between -{LIMIT} and {LIMIT}, got {number}")
    if number < 0:
        return "minus " + to_words(-number)
    if number == 0:
        return SMALL[0]
    words: list[str] = []
    for name, scale in SCALES.items():
        group, number = divmod(number, scale)
        if group:
            words += [_group(group), name]
    if number:
        words.append(_group(number))
    return " ".join(words)


def _group(number: int) -> str:
    """1 to 999."""
    hundreds, rest = divmod(number, 100)
    words = [SMALL[hundreds], "hundred"] if hundreds else []
    if 0 < rest < 20:
        words.append(SMALL[rest])
    elif rest:
        tens = next(word for word, value in TENS.items() if value == rest // 10 * 10)
        words.append(f"{tens}-{SMALL[rest % 10]}" if rest % 10 else tens)
    return " ".join(words)
