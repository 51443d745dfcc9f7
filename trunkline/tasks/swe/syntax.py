"""Python source to a syntax tree, in one thread at a time. Owns the lock; what is done with trees is their users'.

Verdicts are made several at once, in threads. In CPython 3.11.0 to 3.11.7 all threads share the counter by which the making of a
tree guards its depth, and two at once end in SystemError (gh-106905). Remove this file once those are no longer supported.
"""

from __future__ import annotations

import ast
import threading

_ONE_AT_A_TIME = threading.Lock()


def parse(source: str) -> ast.Module:
    """The tree of a module. Raises SyntaxError, ValueError (a NUL), RecursionError, MemoryError, as ast.parse does."""
    with _ONE_AT_A_TIME:
        return ast.parse(source)


def parse_expression(source: str) -> ast.expr:
    """The tree of one expression. Raises as `parse` does."""
    with _ONE_AT_A_TIME:
        return ast.parse(source, mode="eval").body
