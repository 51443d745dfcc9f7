"""Numbers that say which one in a row."""

from numwords.writing import to_words

IRREGULAR = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def to_ordinal(number: int) -> str:
    """The ordinal of `number`, from 1 on: 21 is "twenty-first". ValueError for what has none."""
    if number < 1:
        raise ValueError(f"number must be at least 1, got {number}")
    words = to_words(number)
    cut = max(words.rfind(" "), words.rfind("-")) + 1
    last = words[cut:]
    if last in IRREGULAR:
        return words[:cut] + IRREGULAR[last]
    return words[:cut] + (last[:-1] + "ieth" if last.endswith("y") else last + "th")
