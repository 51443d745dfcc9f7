"""JSON that clients send, decoded into types: what is wrong is said with its place. Owns no API's types."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from trunkline.errors import MalformedRequest

_Body = TypeVar("_Body", bound=Struct)


def read_at(raw: bytes | msgspec.Raw, form: Any, where: str) -> Any:
    """A value of type `form`; `where` is its place in the body, '' for the body itself.

    Raises MalformedRequest: "input[3].content[0]: Expected `str`, got `int`".
    """
    try:
        return msgspec.json.decode(raw, type=form)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        what, _, path = str(error).partition(" - at `$")
        place = (where + path.rstrip("`")).lstrip(".")
        raise MalformedRequest(f"{place or 'the body'}: {what}") from error


def read_body(
    body: bytes, form: type[_Body], *, harmless: Collection[str], neutral: Mapping[str, Collection[Any]], not_honoured: list[str]
) -> _Body:
    """A request with keys beyond those of `form`. What would change an answer goes into `not_honoured`, in words.

    Args:
        body: a JSON object.
        form: of its known keys.
        harmless: keys that change nothing.
        neutral: keys that change nothing while they hold one of these values, or null.
        not_honoured: is extended by the other keys.

    Raises MalformedRequest as `read_at` does.
    """
    keys: dict[str, Raw] = read_at(body, dict[str, Raw], "")
    kept = {}
    for key, raw in keys.items():
        if key in form.__struct_fields__:
            kept[key] = raw
        elif key not in harmless and bytes(raw) != b"null" and read_at(raw, Any, key) not in neutral.get(key, ()):
            not_honoured.append((f"{key} {bytes(raw).decode()}" if key in neutral else f"unknown key {key!r}")[:200])
    read: _Body = read_at(msgspec.json.encode(kept), form, "")
    return read


def read_or_none(text: str) -> Any:
    """Any JSON value; None if it is not JSON."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
