"""Finds the blocks of a text: paragraphs, quotations ("> ...") and list items ("- ...")."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """A piece of text that is broken into lines on its own."""

    kind: str
    """paragraph, quote or item."""
    text: str
    """Its words, without marks, joined by single blanks."""


def kind_of(line: str) -> str:
    """The kind of block that a line that isn't empty belongs to."""
    if line.startswith(">"):
        return "quote"
    if line.startswith("- "):
        return "item"
    return "paragraph"


def split_blocks(text: str) -> list[Block]:
    """The blocks of `text`, in order.

    An empty line ends a block, and so does a line of another kind. Each "- " starts an item of its own; an indented line
    after an item continues it.
    """
    blocks: list[Block] = []
    words: list[str] = []
    kind = ""

    def close() -> None:
        if words:
            blocks.append(Block(kind, " ".join(words)))
            words.clear()

    for line in text.splitlines():
        if not line.strip():
            close()
            kind = ""
            continue
        is_continued = kind == "item" and line[0] == " "
        if not is_continued and (kind_of(line) != kind or kind_of(line) == "item"):
            close()
            kind = kind_of(line)
        body = line.lstrip("> ") if kind == "quote" else line.removeprefix("- ") if kind == "item" else line
        words.extend(body.split())
    close()
    return blocks
