"""Which places of a test verdicts use, and what is dealt there."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from trunkline.tasks.swe.dealing import deal, hides_answer, settle, usable
from trunkline.tasks.swe.perturb import HOLE, Probe, candidate_probes, find_function
from trunkline.tasks.swe.sheets import masked

FILE = "test_it.py"


def candidates(source: str, **fails: str) -> list[Probe]:
    """All that are offered for test_it, with the ending that fails ('{}' is the value)."""
    found = candidate_probes(source, file=FILE, qualname="test_it", rng=random.Random(0))
    ending = fails.get("ending", "")
    return [probe.model_copy(update={"fails": (ending.format(probe.replacement),)}) for probe in found]


def constants(source: str, **fails: str) -> list[Probe]:
    return [probe for probe in candidates(source, **fails) if probe.kind == "constant"]


def dealt(source: str, probes: list[Probe], seed: int) -> list[str]:
    found = deal(probes, find_function(source, "test_it"), 4, set(), random.Random(seed))
    return [probe.replacement if probe else "true" for probe in found]


def test_where_any_value_bites_new_ones_are_dealt_in_each_sheet_with_the_true_one_at_any_rank():
    source = "def test_it():\n    assert f() == 135\n"
    tried = constants(source)
    (probe,) = settle(tried, tried)
    assert probe.is_drawn and hides_answer([probe])
    ranks, dealings = Counter(), set()
    for seed in range(400):
        values = sorted(135 if text == "true" else int(text) for text in dealt(source, [probe], seed))
        ranks[values.index(135)] += 1
        dealings.add(tuple(values))
    assert len(dealings) == 4
    assert all(60 <= ranks[rank] <= 140 for rank in range(4)), ranks


def test_where_one_of_the_values_did_not_bite_only_those_are_used_that_did():
    source = "def test_it():\n    assert f() == 135\n"
    tried = constants(source)
    found = settle(tried, tried[1:])
    assert found == tried[1:] and not hides_answer(found)


@pytest.mark.parametrize("source", ["def test_it():\n    assert f(15) == g\n", "def test_it():\n    assert 135 in f()\n"])
def test_of_inputs_and_of_what_may_be_contained_only_values_are_dealt_that_bit(source):
    tried = constants(source)
    found = settle(tried, tried)
    assert found == tried and len(tried) == 6 and hides_answer(found)
    assert not hides_answer(tried[:5])
    allowed = {probe.replacement for probe in tried}
    shares = Counter(text for seed in range(40) for text in dealt(source, found, seed))
    assert shares.pop("true") == 40 and set(shares) == allowed


def test_a_drawn_value_in_the_name_of_a_test_is_drawn_there_too():
    source = "@parametrize('a, b', [(4, 16), (5, 25)])\ndef test_it(a, b):\n    assert f(a) == b\n"
    tried = constants(source, ending="[4-{}]")[:3]
    (probe,) = settle(tried, tried)
    assert probe.fails == (f"[4-{HOLE}]",)
    for one in deal([probe], find_function(source, "test_it"), 4, set(), random.Random(1)):
        assert one is None or one.fails == (f"[4-{one.replacement}]",)


def test_where_names_of_tests_depend_on_the_value_in_other_ways_only_tried_values_are_used():
    source = "@parametrize('a, b', [(4, 16)])\ndef test_it(a, b):\n    assert f(a) == b\n"
    tried = [probe.model_copy(update={"fails": (f"[{number}]",)}) for number, probe in enumerate(constants(source)[:3])]
    assert settle(tried, tried) == tried


@pytest.mark.parametrize(
    "body",
    [
        "f() == 0",
        "f() == 1",
        "f() == 100",
        "f() is None",
        "f() is True",
        "f() == ''",
        "f() == []",
        "f() == {}",
        "f() == x",
        "f(x)",
        "f() == 'a'",
    ],
)
def test_a_test_hides_nothing_whose_true_value_stands_out_or_that_can_only_be_turned(body):
    found = candidates(f"def test_it():\n    assert {body}\n")
    assert found and not hides_answer(settle(found, found))


def test_a_test_that_only_expects_an_exception_hides_nothing():
    found = candidates("def test_it():\n    with pytest.raises(ValueError):\n        f(x)\n")
    assert found and not hides_answer(settle(found, found))


@pytest.mark.parametrize(
    ("beside", "is_masked"),
    [
        ("def helper():\n    return test_it()\n", False),
        ("@pytest.mark.dependency(depends=['test_it'])\ndef test_b():\n    pass\n", False),
        ("def test_b():\n    test_it = 1\n    assert test_it == 1\n", True),
        ("def test_b(test_it):\n    assert test_it == 1\n", True),
        ("def test_b():\n    'Like test_it.'\n", True),
        ("def test_b():\n    global test_it\n    test_it = 1\n", False),
    ],
)
def test_a_test_whose_name_is_mentioned_hides_nothing_as_one_copy_keeps_it(beside, is_masked):
    source = "def test_it():\n    assert f() == 135\n"
    tried = constants(source)
    assert masked({FILE: source, "test_b.py": beside}, settle(tried, tried)) == ({f"{FILE}::test_it"} if is_masked else set())


def test_what_is_never_dealt_is_not_kept():
    source = "def test_it():\n    assert f(15) == 135\n    assert f(x) == 0\n"
    tried = candidates(source)
    (probe,) = usable(settle(tried, tried))
    assert probe.is_drawn and not probe.stands_out


def test_probes_of_a_test_that_has_changed_are_refused():
    probe = Probe(file=FILE, qualname="test_it", site=9, kind="constant", replacement="", is_exact=True)
    with pytest.raises(ValueError, match="calibrate again"):
        dealt("def test_it():\n    assert f() == 135\n", [probe], 0)
