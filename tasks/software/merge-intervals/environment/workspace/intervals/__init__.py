"""Sets of integers as lists of half-open intervals (start, end): start belongs to the interval, end does not."""

from intervals.merging import clip, merge
from intervals.queries import contains, free, length

__all__ = ["clip", "contains", "free", "length", "merge"]
