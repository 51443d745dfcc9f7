"""From the lines of a text to its entries: comments and blank lines go, continued lines are joined."""

from collections.abc import Iterator


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Each entry of `text` with the number of the line where it begins.

    A line that ends with a backslash goes on in the next one; backslash and line break become one blank. Lines that are
    blank or whose first character (after blanks) is "#" are no entries, but inside of a continued entry they are part of
    it. A backslash at the end of the text continues nothing and is dropped.
    """
    number = 0
    waiting: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if not waiting and (not stripped or stripped.startswith("#")):
            continue
        if stripped.endswith("\\"):
            waiting.append(stripped[:-1].rstrip())
            continue
        number += 1
        yield number, " ".join([*waiting, stripped]).strip()
        waiting.clear()
    if waiting:
        yield number + 1, " ".join(waiting).strip()
