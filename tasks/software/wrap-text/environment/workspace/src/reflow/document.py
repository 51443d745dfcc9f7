"""Puts a whole text together again from its blocks."""

from reflow.blocks import split_blocks
from reflow.lines import justify, wrap

PREFIXES = {"paragraph": ("", ""), "quote": ("> ", "> "), "item": ("- ", "  ")}
"""What stands before the first line of a block of a kind, and before its others."""


def reflow(text: str, width: int = 72, *, is_justified: bool = False) -> str:
    """`text` with every block wrapped to `width`; blocks are parted by empty lines, items that follow each other are not.

    With `is_justified`, all lines of a paragraph but its last reach the full width.
    """
    parts: list[str] = []
    before = ""
    for block in split_blocks(text):
        first, rest = PREFIXES[block.kind]
        lines = wrap(block.text, width, first=first, rest=rest)
        if is_justified and block.kind == "paragraph":
            lines = [*(justify(line, width) for line in lines[:-1]), lines[-1]]
        if parts and not (block.kind == "item" and before == "item"):
            parts.append("")
        parts.extend(lines)
        before = block.kind
    return "\n".join(parts)
