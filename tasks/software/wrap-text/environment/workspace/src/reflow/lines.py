"""Breaks words into lines of a width, and stretches lines to it."""


def wrap(text: str, width: int, *, first: str = "", rest: str = "") -> list[str]:
    """The words of `text` in lines of at most `width` characters.

    `first` stands before the first line and `rest` before all others; both count as part of the width. Each line takes
    as many words as fit. A word that is longer than its line has room for stands alone in its line and is never cut.
    Without words there are no lines. Raises ValueError if a prefix leaves no room for a single character.
    """
    if max(len(first), len(rest)) >= width:
        raise ValueError(f"width must exceed the prefixes {first!r} and {rest!r}, got {width}")
    lines: list[str] = []
    room = width - len(first)
    line = ""
    for word in text.split():
        if not line:
            line = word
        elif len(line) + 1 + len(word) < room:
            line = f"{line} {word}"
        else:
            lines.append(line)
            line = word
    if line:
        lines.append(line)
    return [(rest if number else first) + line for number, line in enumerate(lines)]


def justify(line: str, width: int) -> str:
    """`line` stretched to `width` by wider gaps between its words; gaps on the left grow first.

    A line of one word, and one that is as long as `width` already, is returned unchanged. Blanks before the first word
    stay as they are.
    """
    words = line.split()
    missing = width - len(line)
    if len(words) < 2 or missing <= 0:
        return line
    margin = line[: len(line) - len(line.lstrip())]
    gaps = len(words) - 1
    missing = width - len(margin) - sum(len(word) for word in words)
    stretched = margin
    for number, word in enumerate(words):
        stretched += word
        if number < gaps:
            stretched += " " * (missing // gaps + (number < missing % gaps))
    return stretched
