"""Whole numbers in English words."""

from numwords.ordinals import to_ordinal
from numwords.writing import to_words

__all__ = ["to_ordinal", "to_words"]
