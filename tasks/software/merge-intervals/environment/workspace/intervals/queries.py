"""Questions about intervals."""

from bisect import bisect_right

from intervals.merging import Interval, check, merge


def length(intervals: list[Interval]) -> int:
    """How many integers the intervals hold; one that is in several of them counts once."""
    return sum(end - start for start, end in merge(intervals))


def contains(intervals: list[Interval], point: int) -> bool:
    """Whether `point` is in one of the intervals."""
    merged = merge(intervals)
    place = bisect_right(merged, point, key=lambda interval: interval[0]) - 1
    return place >= 0 and point < merged[place][1]


def free(intervals: list[Interval], *, window: Interval) -> list[Interval]:
    """What of `window` none of the intervals holds, in normal form."""
    first, last = check(window)
    gaps = []
    for start, end in merge(intervals):
        if start >= last:
            break
        if first < start:
            gaps.append((first, start))
        first = max(first, end)
    if first < last:
        gaps.append((first, last))
    return gaps
