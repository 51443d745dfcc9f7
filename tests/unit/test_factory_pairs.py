"""Which valid candidates are merged: neighbours first, each in one task at most, what failed freed for others."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from trunkline.tasks.factory.candidate import Candidate, Order, Rejected
from trunkline.tasks.factory.ledger import Entry, Made
from trunkline.tasks.factory.variants.pairs import MOST_TRIES, REACH, SOURCE_FILES, Valid, next_pairs


def valid(day: int, *files: str, project: str = "a/b") -> Valid:
    """A change of that day; of other files than others if none are named."""
    candidate = Candidate(f"{project[-1]}-{day}", project, f"{day}", f"{day + 1}", dt.datetime(2024, 1, day, tzinfo=dt.UTC))
    return Valid(candidate, frozenset(files or (f"{day}.py",)))


def newest_first(*found: Valid) -> list[Valid]:
    return list(reversed(found))


def merges(orders: Sequence[Order]) -> list[tuple[str, ...]]:
    return [order.merges for order in orders]


def ended(*ids: str, cause: str = "") -> Entry:
    """The line of a pair: a task, or a cause."""
    name = "-and-".join(ids)
    if cause:
        return Entry(name, rejected=(Rejected(name, "run", cause),), merges=ids)
    return Entry(name, made=(Made(name, "merged", "bug", 2, 3),), merges=ids)


def test_neighbours_are_paired_and_nobody_is_in_two_pairs() -> None:
    found = newest_first(*(valid(day) for day in (1, 2, 3, 4, 5)))
    assert merges(next_pairs(found, [])) == [("b-4", "b-5"), ("b-2", "b-3")]


def test_changes_of_the_same_file_go_before_those_side_by_side() -> None:
    found = newest_first(valid(1, "shop.py"), valid(2), valid(3, "shop.py", "cart.py"), valid(4))
    assert merges(next_pairs(found, [])) == [("b-1", "b-3"), ("b-2", "b-4")]


def test_the_order_is_that_of_time_whatever_the_source_says() -> None:
    assert merges(next_pairs([valid(2), valid(9), valid(1), valid(8)], [])) == [("b-8", "b-9"), ("b-1", "b-2")]


def test_projects_are_never_mixed() -> None:
    found = newest_first(valid(1, project="a/b"), valid(2, project="a/c"), valid(3, project="a/b"))
    assert merges(next_pairs(found, [])) == [("b-1", "b-3")]


def test_what_is_too_far_apart_is_no_pair() -> None:
    days = range(1, REACH + 3)
    found = newest_first(*(valid(day, *(["shop.py"] if day in (days[0], days[-1]) else [])) for day in days))
    assert ("b-1", f"b-{days[-1]}") not in merges(next_pairs(found, []))


def test_a_pair_that_failed_is_not_tried_again_and_frees_both_for_others() -> None:
    found = newest_first(valid(1), valid(2), valid(3))
    failed = ended("b-2", "b-3", cause="the changes overlap")
    assert merges(next_pairs(found, [failed])) == [("b-1", "b-2")]
    assert merges(next_pairs(found, [failed, ended("b-1", "b-2", cause="one change is enough")])) == [("b-1", "b-3")]


def test_what_is_merged_is_merged_once() -> None:
    found = newest_first(valid(1), valid(2), valid(3))
    assert next_pairs(found, [ended("b-2", "b-3")]) == []


def test_rounds_end_and_nobody_is_tried_too_often() -> None:
    found = newest_first(*(valid(day, "shop.py") for day in range(1, 12)))
    entries: list[Entry] = []
    while orders := next_pairs(found, entries):
        entries += [ended(*order.merges, cause="the changes overlap") for order in orders]
    tries = [one for entry in entries for one in entry.merges]
    assert max(map(tries.count, tries)) <= MOST_TRIES
    assert len({entry.candidate_id for entry in entries}) == len(entries)


def test_lines_of_candidates_are_no_pairs() -> None:
    found = newest_first(valid(1), valid(2))
    mined = Entry("b-1", made=(Made("b-1", "mined", "bug", 1, 1),), facts={SOURCE_FILES: "shop.py\ncart.py"})
    assert merges(next_pairs(found, [mined])) == [("b-1", "b-2")]
    assert Valid.of(found[1].candidate, mined).source_files == {"shop.py", "cart.py"}
