"""One small change of a Python source as text, so that comments and layout stay. Owns offsets; what is changed, operators say."""

from __future__ import annotations

import ast
import bisect
import re
from dataclasses import dataclass, field

_LINE_END = re.compile(rb"\r\n|\r|\n")
_AROUND = rb"[\s\\)]*(%b)[\s\\(]*"
"""What may stand about an operator between its operands: brackets, white space, no comment."""


@dataclass(frozen=True)
class Edit:
    """Some bytes of a source, and what is written instead."""

    operator: str
    """What kind of fault it makes, such as 'boundary'."""
    start: int
    """First byte that goes."""
    end: int
    """The first that stays."""
    text: str
    """What stands there afterwards."""


@dataclass
class SourceBytes:
    """A source as UTF-8, by which syntax trees count their columns."""

    content: bytes
    """All of it."""
    _starts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._starts = [0, *(found.end() for found in _LINE_END.finditer(self.content))]

    def start(self, node: ast.AST) -> int:
        """Where a node begins."""
        return self.at(node.lineno, node.col_offset)  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        """The first byte behind it."""
        return self.at(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def at(self, line: int, column: int = 0) -> int:
        """The offset of a line, counted from 1, and a column."""
        return self._starts[line - 1] + column if line <= len(self._starts) else len(self.content)

    def line_of(self, offset: int) -> int:
        """The number of the line with this byte."""
        return bisect.bisect_right(self._starts, offset)

    def text(self, node: ast.AST) -> str:
        """As it stands there."""
        return self.content[self.start(node) : self.end(node)].decode()

    def replace(self, operator: str, node: ast.AST, text: str) -> Edit:
        """The node, written otherwise."""
        return Edit(operator, self.start(node), self.end(node), text)

    def replace_sign(self, operator: str, left: ast.AST, sign: str, right: ast.AST, text: str) -> Edit | None:
        """The sign between two operands, 'not in' for example; None if a comment stands there, too."""
        start = self.end(left)
        pattern = _AROUND % rb"\s+".join(re.escape(word).encode() for word in sign.split())
        found = re.fullmatch(pattern, self.content[start : self.start(right)])
        return None if found is None else Edit(operator, start + found.start(1), start + found.end(1), text)

    def exchange(self, operator: str, first: ast.AST, second: ast.AST) -> Edit:
        """Two nodes, each in the other's place."""
        between = self.content[self.end(first) : self.start(second)].decode()
        return Edit(operator, self.start(first), self.end(second), self.text(second) + between + self.text(first))

    def without_lines(self, operator: str, node: ast.stmt) -> Edit | None:
        """The lines of a statement that shares them with nothing else; None if it does."""
        start, end = self.at(node.lineno), self.at((node.end_lineno or node.lineno) + 1)
        before, after = self.content[start : self.start(node)], self.content[self.end(node) : end]
        is_alone = not before.strip() and (not after.strip() or after.strip().startswith(b"#"))
        return Edit(operator, start, end, "") if is_alone else None

    def edited(self, edit: Edit, start: int = 0, end: int | None = None) -> str:
        """The source with the change, or the part of it that these bytes were before."""
        end = len(self.content) if end is None else end
        return (self.content[start : edit.start] + edit.text.encode() + self.content[edit.end : end]).decode()
