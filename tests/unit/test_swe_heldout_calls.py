"""How calls and outcomes of held-out inputs are written: exact types, every bit, and nothing but plain data."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from enum import IntEnum
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.tasks.swe.programs.heldout_calls import NotPlain, decode, draw_calls, encode, observe

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
HASHABLE = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
PLAIN = st.recursive(
    HASHABLE | st.sets(HASHABLE, max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(HASHABLE, inner, max_size=3),
    max_leaves=8,
)


class Level(IntEnum):
    LOW = 1


class Always(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


def written(value: Any) -> str:
    return json.dumps(encode(value))


@given(PLAIN)
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    back = decode(json.loads(written(value)))
    assert type(back) is type(value)
    assert back == value
    assert written(back) == written(value)


@pytest.mark.parametrize(
    "left, right",
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        (0.1 + 0.2, 0.3),
        ([1], (1,)),
        ({1}, frozenset({1})),
        ("1", b"1"),
        ("1", 1),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"int": "0x1"}, 1),
        (None, False),
        ([], {}),
    ],
)
def test_what_is_not_the_same_is_not_written_the_same(left: Any, right: Any) -> None:
    assert written(left) != written(right)


def test_sets_are_written_the_same_whatever_their_order() -> None:
    assert written({3, 1, 2, "a", (1, 2)}) == written({(1, 2), "a", 2, 1, 3})


def test_no_number_is_a_number_of_its_own() -> None:
    assert written(math.nan) == written(-math.nan) != written(math.inf)


@pytest.mark.parametrize("value", [Always(3), Level.LOW, OrderedDict(), object(), int, 1j, [1, {"a": Always(1)}]])
def test_subclasses_and_objects_are_no_plain_data(value: Any) -> None:
    with pytest.raises(NotPlain, match="not plain data: "):
        encode(value)


def test_depth_and_size_are_bounded() -> None:
    deep: list[Any] = []
    deep.append(deep)
    for value in (deep, "x" * 200_000, [0] * 200_000, 1 << 10_000_000):
        with pytest.raises(NotPlain, match="deeper than"):
            encode(value)


def module(**functions: Any) -> ModuleType:
    made = ModuleType("heldout")
    vars(made).update(functions)
    return made


def test_exceptions_are_told_by_their_type_alone() -> None:
    def fails(call: Any) -> None:
        raise KeyError(call)

    assert observe(module(observe=fails), encode(1)) == observe(module(observe=fails), encode(2)) == '["raises", "builtins.KeyError"]'


def test_an_outcome_that_is_no_plain_data_is_a_fault() -> None:
    assert observe(module(observe=Always), encode(1)) == '["fault", "not plain data: Always"]'


def test_the_same_seed_draws_the_same_calls_in_an_order_of_its_own() -> None:
    heldout = module(calls=lambda rng: [(kind, rng.random()) for kind in "ab" for _ in range(20)])
    calls = draw_calls(heldout, 7, 100)
    assert calls == draw_calls(heldout, 7, 100) != draw_calls(heldout, 8, 100)
    assert {decode(call)[0] for call in calls[:20]} == {"a", "b"}


def test_calls_without_end_are_refused() -> None:
    def endless(rng: Any) -> Any:
        while True:
            yield 1

    with pytest.raises(NotPlain, match="more than 10 calls"):
        draw_calls(module(calls=endless), 0, 10)
