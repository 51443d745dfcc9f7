"""Reads the value of a setting by its type."""

from collections.abc import Callable

Value = str | int | float | bool | list[str]

SWITCHES = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


def read_switch(text: str) -> bool:
    """yes, on, true, no, off or false, in any case."""
    return SWITCHES[text.lower()]


def read_list(text: str) -> list[str]:
    """Words parted by commas; blanks around them don't count and empty ones are left out."""
    return [word for word in (part.strip() for part in text.split(",")) if word]


READERS: dict[str, Callable[[str], Value]] = {
    "str": str,
    "int": int,
    "float": float,
    "switch": read_switch,
    "list": read_list,
}


def read_value(kind: str, text: str) -> Value:
    """`text` as a value of type `kind`; just `text` if it can't be read as one."""
    try:
        return READERS[kind](text)
    except (ValueError, KeyError):
        return text
