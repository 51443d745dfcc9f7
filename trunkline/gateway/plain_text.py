"""Text that spells a control token stays text. Owns the marking of such text and its encoding; no format.

A vocabulary turns the spellings of its added tokens into those tokens wherever they stand, so that a file which an agent reads could
end a turn. Marked text is encoded in two halves, which spell the same and are no control token. The marks are noncharacters of
Unicode (section 23.7), which no text for interchange holds; one that does is kept all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_HALVES, _ITSELF = "\ufdd0\ufdd2", "\ufdd0\ufdd1"
_CUT = re.compile(r"\ufdd0\ufdd2|\\ufdd0\\ufdd2")  # also as JSON that escapes what is not ASCII writes it


def marked(text: str, control_texts: Iterable[str]) -> str:
    """The text with a mark inside each spelling of a control token."""
    text = text.replace("\ufdd0", _ITSELF)
    for spelling in control_texts:
        if spelling in text:
            text = text.replace(spelling, spelling[:1] + _HALVES + spelling[1:])
    return text


class PlainTextTokenizer:
    """A transformers tokenizer that encodes marked text as plain text. It has no offsets, so renderers do without them."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str, **options: Any) -> list[int]:
        """Ids of the text."""
        if "\ufdd0" not in text and "\\ufdd0" not in text:
            ids: list[int] = self._tokenizer.encode(text, **options)
            return ids
        parts = (part.replace(_ITSELF, "\ufdd0") for part in _CUT.split(text))
        return [token for part in parts if part for token in self._tokenizer.encode(part, **options)]

    def __getattr__(self, name: str) -> Any:
        if name == "__call__":  # what gives offsets
            raise AttributeError(name)
        return getattr(self._tokenizer, name)
