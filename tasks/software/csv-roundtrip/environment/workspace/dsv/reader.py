"""From text to rows."""

from dsv.dialect import COMMA, Dialect


class DsvError(ValueError):
    """The text is not of its dialect; `row` is the number of the row, from 1."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row}: {reason}")
        self.row = row
        self.reason = reason


def read(text: str, dialect: Dialect = COMMA) -> list[list[str]]:
    """The rows of `text`, each a list of its fields.

    A line break ends a row; the last row needs none. An empty line is a row with one empty field. A quote sign opens a
    quoted field only as the first character of the field; elsewhere in a field that isn't quoted it is plain text. Raises
    DsvError for a quoted field that is not closed ("unclosed quote"), and for one that is followed by anything but a
    delimiter or the end of the row ("text after quote").
    """
    rows: list[list[str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        rows.append(_fields(line, number, dialect))
    return rows


def _fields(line: str, number: int, dialect: Dialect) -> list[str]:
    fields: list[str] = []
    place = 0
    while True:
        if line[place : place + 1] == dialect.quote:
            end = line.find(dialect.quote, place + 1)
            if end < 0:
                raise DsvError(number, "unclosed quote")
            fields.append(line[place + 1 : end])
            place = end + 1
            if place < len(line) and line[place] != dialect.delimiter:
                raise DsvError(number, "text after quote")
        else:
            end = line.find(dialect.delimiter, place)
            end = len(line) if end < 0 else end
            fields.append(line[place:end])
            place = end
        if place == len(line):
            return fields
        place += 1


def read_records(text: str, dialect: Dialect = COMMA) -> list[dict[str, str]]:
    """The rows after the first as mappings from the names in the first row.

    Raises DsvError for a row that is longer or shorter than the first ("N fields instead of M"), and for a name that stands
    twice in the first row ("NAME stands twice").
    """
    rows = read(text, dialect)
    if not rows:
        return []
    names = rows[0]
    for name in names:
        if names.count(name) > 1:
            raise DsvError(1, f"{name} stands twice")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(names):
            raise DsvError(number, f"{len(row)} fields instead of {len(names)}")
    return [dict(zip(names, row, strict=True)) for row in rows[1:]]
