"""Budgets of size and naming, for every Python file here alike. Complexity and argument counts are ruff's.

A code line holds code: blank lines, comments and docstrings are free. A file fails at more than 500 code lines, a
function at more than 80; `--report` also lists what passes 300 and 40, which asks to be split.

    python -m tools.budgets [--report] [PATH ...]
"""

from __future__ import annotations

import argparse
import ast
import io
import sys
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

DEFAULT_PATHS = (Path("trunkline"), Path("tools"), Path("tests"))
BANNED_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "misc", "manager", "core"})
_NO_CODE = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Budget:
    """At most so many code lines."""

    file: int
    """In a file."""
    function: int
    """In a function, its signature, decorators and nested functions included."""


HARD = Budget(file=500, function=80)
SOFT = Budget(file=300, function=40)


@dataclass(frozen=True)
class Size:
    """A file or function with its number of code lines."""

    place: str
    """PATH, or PATH:LINE NAME() of a function."""
    lines: int
    """Code lines."""
    is_function: bool
    """False for a file."""

    def exceeds(self, budget: Budget) -> bool:
        """True if it is longer than the budget allows."""
        return self.lines > (budget.function if self.is_function else budget.file)

    def complaint(self, budget: Budget) -> str:
        """One line: what, how long, how long it may be."""
        limit, what = (budget.function, "a function") if self.is_function else (budget.file, "a file")
        return f"{self.place}: {self.lines} code lines, {what} may have {limit}; split it"


def code_lines(source: str) -> set[int]:
    """Numbers (from 1) of the lines of `source` that hold code. Raises SyntaxError if it is not Python."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - _docstring_lines(ast.parse(source))


def _docstring_lines(tree: ast.Module) -> set[int]:
    """Lines of all strings that stand alone as statements: docstrings, and the sentences under fields."""
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def sizes(path: Path) -> Iterator[Size]:
    """The size of the file, then of each of its functions."""
    source = path.read_text(encoding="utf-8")
    lines = code_lines(source)
    yield Size(str(path), len(lines), is_function=False)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _FUNCTIONS):
            first = min((decorator.lineno for decorator in node.decorator_list), default=node.lineno)
            body = lines.intersection(range(first, (node.end_lineno or node.lineno) + 1))
            yield Size(f"{path}:{node.lineno} {node.name}()", len(body), is_function=True)


def naming_complaint(path: Path) -> str | None:
    """Why the file's or its folder's name is refused; None if it is not."""
    for name in (path.stem, path.parent.name):
        if name in BANNED_NAMES:
            return f"{path}: {name!r} names no idea; name it for what it holds"
    return None


def python_files(paths: Sequence[Path]) -> list[Path]:
    """All Python files at or under the paths. Raises FileNotFoundError for a path that is not there."""
    files: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: {path}; run from the repository's root")
        files.update(path.rglob("*.py") if path.is_dir() else [path])
    return sorted(file for file in files if "__pycache__" not in file.parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints every breach; returns 1 if there is one."""
    parser = argparse.ArgumentParser(description="Budgets of size and naming.")
    parser.add_argument("paths", nargs="*", type=Path, default=DEFAULT_PATHS)
    parser.add_argument(
        "--report", action="store_true", help=f"also list files over {SOFT.file} and functions over {SOFT.function} code lines"
    )
    options = parser.parse_args(arguments)
    files = python_files(options.paths)
    measured = [size for file in files for size in sizes(file)]
    breaches = [size.complaint(HARD) for size in measured if size.exceeds(HARD)]
    breaches += filter(None, map(naming_complaint, files))
    if options.report:
        for size in sorted(measured, key=lambda size: -size.lines):
            if size.exceeds(SOFT) and not size.exceeds(HARD):
                print(f"{size.place}: {size.lines} code lines")
    for breach in breaches:
        print(breach, file=sys.stderr)
    print(f"budgets: {len(files)} files, {len(breaches)} breaches")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
