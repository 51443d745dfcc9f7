"""From rows to text."""

from collections.abc import Iterable, Sequence

from dsv.dialect import COMMA, Dialect


def write(rows: Iterable[Sequence[str]], dialect: Dialect = COMMA) -> str:
    """`rows` as text that `read` turns into the same rows again.

    A field is quoted only if it must be. Raises ValueError for a row without fields, which the format can't express.
    """
    return "".join(_line(row, dialect) + dialect.newline for row in rows)


def _line(row: Sequence[str], dialect: Dialect) -> str:
    if not row:
        raise ValueError("a row needs at least one field")
    return dialect.delimiter.join(_quoted(field, dialect) if _needs_quotes(field, dialect) else field for field in row)


def _needs_quotes(field: str, dialect: Dialect) -> bool:
    return dialect.delimiter in field


def _quoted(field: str, dialect: Dialect) -> str:
    return dialect.quote + field + dialect.quote
