"""Brings intervals into normal form: sorted, disjoint, with a gap between neighbours."""

Interval = tuple[int, int]


def check(interval: Interval) -> Interval:
    """`interval` itself; ValueError if it ends before it starts."""
    start, end = interval
    if end < start:
        raise ValueError(f"interval ends before it starts: ({start}, {end})")
    return start, end


def merge(intervals: list[Interval]) -> list[Interval]:
    """The same integers in normal form.

    Intervals that overlap or touch become one; empty ones (start == end) are left out. The order of the input does not
    matter, and the input is not changed.
    """
    merged: list[Interval] = []
    for start, end in sorted(check(interval) for interval in intervals):
        if start == end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def clip(intervals: list[Interval], *, window: Interval) -> list[Interval]:
    """The part of `intervals` that lies in `window`, in normal form."""
    first, last = check(window)
    inside = []
    for start, end in merge(intervals):
        start, end = max(start, first), min(end, last)
        if start < end:
            inside.append((start, end))
    return inside
