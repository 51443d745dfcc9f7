"""JSON that clients send, decoded into types: what is wrong is said with its place. Owns no API's types."""

from __future__ import annotations

from typing import Any

import msgspec

from trunkline.errors import MalformedRequest


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


def read_or_none(text: str) -> Any:
    """Any JSON value; None if it is not JSON."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
