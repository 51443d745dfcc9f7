"""How a file of separated values is written."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dialect:
    """The signs of a format.

    A field may be quoted: it then stands between two quote signs, in which delimiters and line breaks are plain text and a
    quote sign is written twice.
    """

    delimiter: str = ","
    """One character between two fields."""
    quote: str = '"'
    """One character around a quoted field."""
    newline: str = "\n"
    """What the writer puts after each row. The reader takes "\\n" and "\\r\\n"."""

    def __post_init__(self) -> None:
        for name, sign in (("delimiter", self.delimiter), ("quote", self.quote)):
            if len(sign) != 1 or sign in "\r\n":
                raise ValueError(f"{name} must be one character and no line break, got {sign!r}")
        if self.delimiter == self.quote:
            raise ValueError(f"delimiter and quote must differ, both are {self.quote!r}")


COMMA = Dialect()
TAB = Dialect(delimiter="\t")
