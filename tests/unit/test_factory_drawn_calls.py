"""Held-out calls: drawn like what was seen, answered as plain data."""

from __future__ import annotations

import collections
import enum
import random

import pytest

from trunkline.tasks.factory.variants import drawn_calls
from trunkline.tasks.factory.variants.drawn_calls import calls, like, observe, plain, real
from trunkline.tasks.factory.variants.heldout import heldout_text, module_name


def drawn(values: list[object], num: int = 300) -> list[object]:
    """Many values like these."""
    return [like(random.Random(seed), values) for seed in range(num)]


def test_numbers_stay_about_what_was_seen() -> None:
    found = drawn([0, 5])
    assert {type(value) for value in found} == {int} and min(found) == 0 and max(found) == 7  # type: ignore[type-var]
    assert min(drawn([-1, 5])) < -1  # type: ignore[type-var, operator]


def test_texts_are_of_the_same_letters_and_empty_only_if_one_was() -> None:
    assert set("".join(map(str, drawn(["ab", "cab"])))) == set("abc") and "" not in drawn(["ab", "cab"])
    assert "" in drawn(["", "ab"])


def test_sequences_keep_their_type_and_the_types_of_their_items() -> None:
    found = drawn([[1, 2], ["a"]])
    assert {type(value) for value in found} == {list}
    assert {type(item) for value in found for item in value} == {int, str}  # type: ignore[attr-defined]


def test_rows_keep_what_stands_in_each_place() -> None:
    for value in drawn([("a", 1), ("b", 2)]):
        assert isinstance(value, tuple) and [type(item) for item in value] == [str, int]


def test_dicts_keep_what_belongs_to_each_key() -> None:
    for value in drawn([{"name": "a", "age": 1}, {"name": "b", "age": 7}]):
        assert isinstance(value, dict) and [(key, type(item)) for key, item in value.items()] == [("name", str), ("age", int)]


def test_signs_stay_signs_and_iterators_get_other_items() -> None:
    assert set(drawn([("\0name", "builtins", "len")])) == {("\0name", "builtins", "len")}
    found = [real(value) for value in drawn([("\0iter", [1, 2, 3])])]
    assert {type(value) for value in found} == {type(iter([]))} and len({tuple(value) for value in found}) > 10
    assert real([("\0range", 1, 5, 2), ("\0name", "collections", "Counter.update")]) == [range(1, 5, 2), collections.Counter.update]


class Colour(enum.Enum):
    """For what is no plain data."""

    RED = 1


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.1 + 0.2, 0.3),
        ((x for x in (1, 2)), ("generator", [1, 2])),
        (collections.Counter("aab"), ("Counter", [("a", 2), ("b", 1)])),
        ({"b", "a"}, ("set", ["'a'", "'b'"])),
        (Colour.RED, ("Colour", "RED")),
        (range(3), ("range", [0, 1, 2])),
        ([{"a": (None, True)}], [{"a": (None, True)}]),
    ],
)
def test_answers_are_told_as_plain_data(value: object, told: object) -> None:
    assert plain(value) == told


def test_answer_of_an_object_says_what_it_holds_and_not_where_it_lies() -> None:
    class Basket:
        def __init__(self) -> None:
            self.prices = [1, 2]

    assert plain(Basket()) == ("Basket", [("prices", [1, 2])])


def test_module_draws_calls_that_the_code_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    text = heldout_text({"math:isqrt": [((4,), {}), ((9,), {})], "math:comb": [((3, 2), {})], "math:log": [((-9,), {})]})
    module: dict[str, object] = {}
    exec(compile(text, "heldout.py", "exec"), module)
    monkeypatch.setattr(drawn_calls, "SEEN", module["SEEN"])
    found = list(calls(random.Random(1)))
    assert {name for name, *_ in found} == {"math:isqrt", "math:comb"}
    assert len(found) == len(set(map(repr, found))) > 10
    assert observe(("math:isqrt", (9,), {})) == 3


def test_module_is_named_from_the_deepest_root() -> None:
    assert module_name("src/shop/prices.py", (".", "src")) == "shop.prices"
    assert module_name("shop/__init__.py", (".",)) == "shop"
