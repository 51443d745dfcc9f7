"""Wildcards inside of one segment of a path, the text between two slashes."""


def match_segment(pattern: str, text: str) -> bool:
    """Whether `pattern` fits the whole of `text`: "*" stands for any text, also none, and "?" for one character."""
    place = at = 0
    star = mark = -1
    while at < len(text):
        if place < len(pattern) and pattern[place] == "*":
            star, mark = place, at
            place += 1
        elif place < len(pattern) and pattern[place] in ("?", text[at]):
            place += 1
            at += 1
        elif star >= 0:
            mark += 1
            place, at = star + 1, mark
        else:
            return False
    return all(sign == "*" for sign in pattern[place:])
