"""Which changes of a test are offered as probes, in which order, and how one is made."""

from __future__ import annotations

import ast
import random
import textwrap
from collections import Counter

import pytest

from trunkline.tasks.swe.nearby import ladder, stretch
from trunkline.tasks.swe.perturb import Probe, candidate_probes, find_function, perturbed


def offered(body: str, *, qualname: str = "test_it", most: int = 40, seed: int = 0) -> list[tuple[str, str, bool]]:
    """(kind, the changed line, is_expected) of each candidate for a test with this body."""
    source = body if "def " in body else f"def test_it(self):\n{textwrap.indent(textwrap.dedent(body), '    ')}"
    source = textwrap.dedent(source)
    function = find_function(source, qualname)
    assert function is not None
    before = ast.unparse(function).splitlines()
    found = []
    for probe in candidate_probes(source, file="test_x.py", qualname=qualname, rng=random.Random(seed), most=most):
        after = ast.unparse(perturbed(function, probe)).splitlines()
        (line,) = [new for old, new in zip(before, after, strict=True) if old != new]
        found.append((probe.kind, line.strip(), probe.is_expected))
    return found


def expected_lines(body: str, **options) -> set[str]:
    return {line for _, line, is_expected in offered(body, **options) if is_expected}


def test_what_a_result_is_compared_with_comes_before_inputs_other_constants_and_last_resorts():
    found = offered(
        """
        factor = 7
        with pytest.raises(ValueError):
            price(-41)
        assert price(15, factor) == 105
        """
    )
    assert [(kind, is_expected) for kind, _, is_expected in found[:4]] == [("constant", True)] * 3 + [("constant", False)]
    assert all(line.startswith("assert price(") and line.endswith("== 105") for _, line, _ in found[3:9])
    assert all(line.startswith(("factor =", "price(")) for _, line, _ in found[9:15])
    assert [kind for kind, _, _ in found[-4:]] == ["raises"] * 3 + ["negation"]


@pytest.mark.parametrize(
    "body",
    [
        "assert area() == 12",
        "assert 12 == area()",
        "assert area() == approx(12)",
        "assert ready() and area() == [7, {'a': 12}]",
        "assert not area() == 12",
        "self.assertEqual(area(), (12, x))",
        "self.assertIn(12, area())",
        "call.assert_called_once_with(x, size=12)",
        "wanted = {'a': 12}\nassert area() == wanted",
        "for side, wanted in ((x, 12), (y, 12)):\n    assert area(side) == wanted",
        "with pytest.raises(ValueError, match='12'):\n    area(x)",
        "self.assertRaisesRegex(ValueError, '12', area)",
    ],
)
def test_constants_beside_the_result_are_known_as_expected(body):
    assert any(line.count("12") < body.count("12") for line in expected_lines(body))


@pytest.mark.parametrize(
    "body",
    [
        "assert area(12) == x",
        "assert table['a'] == x",
        "side = 12\nassert area(side) == x",
        "for side, wanted in ((12, x),):\n    assert area(side) == wanted",
        "assert area() == approx(x, rel=0.1)",
    ],
)
def test_inputs_are_offered_but_not_known_as_expected(body):
    found = offered(body)
    assert [kind for kind, _, _ in found].count("constant") >= 1
    assert not any(is_expected for _, _, is_expected in found)


def test_only_the_columns_of_a_table_that_are_compared_are_expected():
    source = """
    @pytest.mark.parametrize("side, wanted", [(12, 144), pytest.param(1, 145, id="one", marks=pytest.mark.slow)], ids=["a", "b"])
    @pytest.mark.skipif(VERSION < 3, reason="old")
    def test_it(side, wanted):
        assert area(side) == wanted
    """
    found = offered(source)
    assert {is_expected for _, line, is_expected in found if "144" not in line or "145" not in line} >= {True}
    assert all(is_expected == ("144" not in line or "145" not in line) for kind, line, is_expected in found if kind == "constant")
    assert all(word in line for _, line, _ in found if "@" in line for word in ("'side, wanted'", "'one'", "['a', 'b']"))
    assert not any("skipif" in line for _, line, _ in found)


def test_docstrings_formatted_texts_messages_encodings_and_annotations_are_never_changed():
    body = """
    '''Twelve is 12.'''
    size: Literal["a"] = f"{x:>12} and 12"
    assert area(open(path, encoding="latin-1"), text.encode("ascii")) == x, "message 12"
    self.assertEqual(area("utf-8"), x, "message 12")
    """
    assert [kind for kind, _, _ in offered(body) if kind == "constant"] == []


def test_an_empty_container_is_filled_where_it_is_expected():
    assert any("[1]" in line or "[2]" in line or "[0]" in line for line in expected_lines("assert split('') == []"))


def test_the_sense_of_asserts_is_turned():
    turned = {
        line for kind, line, _ in offered("assert f(x)\nassert f(x) == y\nself.assertTrue(f(x))\nassert not f(x)") if kind == "negation"
    }
    assert turned <= {"assert not f(x)", "assert f(x) != y", "self.assertFalse(f(x))", "assert f(x)"}
    assert turned


def test_an_expected_exception_becomes_an_unrelated_one():
    for name in ("pytest.raises(ValueError)", "self.assertRaises(ValueError)"):
        lines = [line for kind, line, _ in offered(f"with {name}:\n    f(x)") if kind == "raises"]
        assert len(lines) == 3
        assert not any("ValueError" in line for line in lines)


def test_several_changes_of_one_place_are_offered_so_that_many_values_stand_beside_the_true_one():
    lines = expected_lines("assert area() == 135")
    assert len(lines) == 3
    assert {line.rsplit(" ", 1)[1] for line in lines} >= {"134", "136"}  # the nearest, which a tolerance would forgive


def test_a_few_offers_still_reach_two_places_and_a_last_resort():
    found = offered("assert f() == 41\nassert g() == 42\nassert h() == 43", most=7)
    assert len(found) == 7
    assert len({line.split("(")[0] for _, line, _ in found}) >= 2
    assert found[-1][0] == "negation"


def test_the_same_seed_gives_the_same_probes_and_another_seed_others():
    body = "assert f(1, 'abc', 2.5) == [10, 20, 30, None, True]"
    assert offered(body, seed=4) == offered(body, seed=4)
    assert offered(body, seed=4) != offered(body, seed=5)


def test_methods_and_coroutines_are_found_and_the_last_of_two_definitions_counts():
    source = """
    class TestA:
        class TestB:
            async def test_it(self):
                assert f() == 1

            async def test_it(self):
                assert g() == 2
    """
    assert {line[:12] for _, line, _ in offered(source, qualname="TestA::TestB::test_it")} == {"assert g() ="} | {"assert g() !"}
    probes = candidate_probes(textwrap.dedent(source), file="t.py", qualname="TestA::test_it", rng=random.Random(0))
    assert probes == []


def test_what_does_not_parse_has_no_probes():
    assert candidate_probes("def test_it(:", file="t.py", qualname="test_it", rng=random.Random(0)) == []


def test_a_probe_of_another_function_is_refused():
    function = find_function("def test_it():\n    assert f() == 1\n", "test_it")
    assert function is not None
    for site, kind in ((7, "constant"), (0, "raises")):
        with pytest.raises(ValueError, match="calibrate again"):
            perturbed(function, Probe(file="t.py", qualname="test_it", site=site, kind=kind, replacement="2"))


def test_the_original_is_not_changed_by_making_a_probe():
    source = "def test_it():\n    assert f([1]) == 1"
    function = find_function(source, "test_it")
    assert function is not None
    for probe in candidate_probes(source, file="t.py", qualname="test_it", rng=random.Random(0)):
        assert ast.unparse(perturbed(function, probe)) != source
    assert ast.unparse(function) == source


@pytest.mark.parametrize(
    "value", [0, 1, 9, 100, 250, 10**30, 0.0, 0.5, 0.1 + 0.2, 3.25, 1e-9, 1e300, True, None, "", "a", "Hi 3", "::", "é\n", b"a\xff", b""]
)
def test_values_beside_another_are_different_of_one_look_and_can_be_written(value):
    for seed in range(20):
        found = [one for _, one in ladder(value, random.Random(seed)).rungs]
        assert found
        assert len({repr(one) for one in found}) == len(found)
        for one in found:
            assert one != value
            assert ast.literal_eval(repr(one)) == one
            assert value is None or isinstance(value, bool) or type(one) is type(value)
            if isinstance(value, float) and isinstance(one, float):
                assert abs(one - value) >= 0.15 * abs(value)


@pytest.mark.parametrize("value", [4, 135, 4000, 3.25, 0.7, 41.0, "k", "H-E-L-L-O", "point 57", b"m 48"])
def test_the_true_value_is_at_any_rank_of_what_is_dealt(value):
    ranks = Counter()
    for seed in range(400):
        rng = random.Random(seed)
        found = ladder(value, rng)
        by_step = dict(found.rungs)
        assert len(by_step) == 6 and not found.stands_out
        ranks[sorted([value, *(by_step[step] for step in stretch(rng, 3))]).index(value)] += 1
    assert all(60 <= ranks[rank] <= 140 for rank in range(4)), ranks


@pytest.mark.parametrize("value", [135, 138, 4000, "p", "H-E-L-L-O", "point 57"])
def test_each_value_that_is_dealt_could_have_been_the_true_one(value):
    for seed in range(20):
        by_step = dict(ladder(value, random.Random(seed)).rungs)
        dealt = {value, *(by_step[step] for step in stretch(random.Random(seed), 3))}
        for other in dealt - {value}:
            assert any(dealt - {other} <= {one for _, one in ladder(other, random.Random(try_)).rungs} for try_ in range(40))


@pytest.mark.parametrize("value", [0, 1, 3, 100, 20, 0.0, 0.1, 2.0, True, None, "", "a", "HELLO", "no word", "Az 1", "::", b""])
def test_some_values_stand_out_whatever_is_beside_them(value):
    assert ladder(value, random.Random(0)).stands_out


def test_a_number_as_low_as_0_has_neighbours_below_it_and_with_a_minus_before_it_none():
    assert dict(ladder(0, random.Random(0)).rungs) == {-1: -1, -2: -2, -3: -3, 1: 1, 2: 2, 3: 3}
    assert min(one for _, one in ladder(2, random.Random(0), has_sign=True).rungs) == 1


def test_round_numbers_have_round_neighbours():
    assert sorted(one for _, one in ladder(4000, random.Random(0)).rungs) == [1000, 2000, 3000, 5000, 6000, 7000]
    assert sorted(one for _, one in ladder(138, random.Random(0)).rungs) == [135, 136, 137, 139, 141, 142]


def test_changed_texts_differ_in_one_place_that_is_the_same_in_all_of_them():
    for seed in range(20):
        found = ["22 57", *(one for _, one in ladder("22 57", random.Random(seed)).rungs)]
        assert {one[:3] for one in found} == {"22 "} or {one[2:] for one in found} == {" 57"}
        found = ["Hello", *(one for _, one in ladder("Hello", random.Random(seed)).rungs)]
        assert sum(len(set(column)) > 1 for column in zip(*found, strict=True)) == 1


@pytest.mark.parametrize(
    "body",
    [
        "assert area() == 12",
        "assert area() and volume() == [12, {'a': 12}]",
        "self.assertEqual(area(), 12)",
        "wanted = 12\nassert area() == wanted",
        "for side, wanted in ((x, 12), (y, 12)):\n    assert area(side) == wanted",
        "call.assert_called_with(12)",
    ],
)
def test_what_a_result_must_equal_is_known(body):
    assert {probe.is_exact for probe in probes_of(body) if probe.replacement in ("11", "13")} == {True}


@pytest.mark.parametrize(
    "body",
    [
        "assert 12 in area()",
        "assert area() > 12",
        "assert area() == 12 or other()",
        "assert not area() != 12",
        "assert area() == approx(12)",
        "self.assertAlmostEqual(area(), 12)",
        "wanted = 12\nassert area() == approx(wanted)",
        "size = 12\nassert area(size) == size",
        "with pytest.raises(ValueError, match='number 12'):\n    area(x)",
        "call.assert_any_call(12)",
    ],
)
def test_where_another_value_might_do_none_is_drawn_that_was_not_tried(body):
    found = [probe for probe in probes_of(body) if probe.kind == "constant" and probe.is_expected]
    assert found and not any(probe.is_exact for probe in found)
    assert [step for step in range(-3, 4) if step] == sorted(probe.step for probe in found)


def probes_of(body: str) -> list[Probe]:
    source = f"def test_it(self):\n{textwrap.indent(body, '    ')}"
    return candidate_probes(source, file="test_x.py", qualname="test_it", rng=random.Random(0))
