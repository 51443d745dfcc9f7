"""Blind tests: what is taken out of them, what is left, and which answers are secret."""

from __future__ import annotations

import textwrap

import pytest

from trunkline.tasks.swe.blind_checks import BlindFile, Check, hides_answers
from trunkline.tasks.swe.blind_tests import blind_file, blind_files
from trunkline.tasks.swe.programs.observer import plain, raised


def blind(source: str, *functions: str) -> BlindFile:
    found = blind_file(textwrap.dedent(source), frozenset(functions or ("test_it",)))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("statement", "run", "check"),
    [
        ("assert f(3) == [9, 'x']", "_trunkline_see(0, f(3))", Check("equal")),
        ("assert [9, 'x'] == f(3)", "_trunkline_see(0, f(3))", Check("equal")),
        ("assert f(3) == g(4)", "_trunkline_see(0, f(3))", Check("equal", is_open=True)),
        ("assert 'usage' in f(3)", "_trunkline_see(0, f(3))", Check("contains", '"usage"')),
        ("self.assertEqual(f(3), 9)", "_trunkline_see(0, f(3))", Check("equal")),
        ("self.assertIn('usage', f(3))", "_trunkline_see(0, f(3))", Check("contains", '"usage"')),
        ("with pytest.raises(KeyError, match='no x'):\n        f(3)", "with _trunkline_raising(0):\n        f(3)", Check("raises", "no x")),
        ("with self.assertRaises(KeyError) as e:\n        f(3)", "with _trunkline_raising(0) as e:\n        f(3)", Check("raises")),
        ("self.assertRaises(KeyError, f, 3)", "with _trunkline_raising(0):\n        f(3)", Check("raises")),
        ("with pytest.warns(UserWarning, match='old'):\n        f(3)", "with _trunkline_warning(0):\n        f(3)", Check("warns", "old")),
    ],
)
def test_an_expectation_is_taken_out_and_kept_by_the_host(statement: str, run: str, check: Check) -> None:
    found = blind(f"def test_it(self):\n    {statement}\n")
    assert f"def test_it(self):\n    {run}\n" in found.text
    assert found.checks == (check,)


@pytest.mark.parametrize(
    "statement", ["assert f(3)", "assert f(3) != 4", "assert f(3) == pytest.approx(0.1)", "assert 1 < f(3) < 4", "f(3)"]
)
def test_what_cannot_be_told_apart_by_what_is_seen_stays_as_it_is(statement: str) -> None:
    assert blind_file(f"def test_it():\n    {statement}\n", frozenset({"test_it"})) is None


def test_expectations_with_names_go_too_but_no_attribute_of_a_class() -> None:
    found = blind(
        """
        import pytest

        @pytest.mark.parametrize("given, wanted", [(1, 111), pytest.param(2, 222, id="two")])
        def test_it(given, wanted):
            class Meta:
                ordered = 5
            expected = {"all": 333}
            assert f(given, Meta) == wanted
            assert g(given) == expected
        """
    )
    assert not any(number in found.text for number in ("111", "222", "333"))
    assert "ordered = 5" in found.text
    assert "(1, None), pytest.param(2, None, id='two')" in found.text


def test_other_tests_of_the_file_are_not_run_and_helpers_stay() -> None:
    source = """
        from __future__ import annotations

        def helper(): return 1
        def test_other(): assert f() == 2
        class TestIt:
            def helper(self): return 1
            def test_a(self): assert f() == 3
            def test_b(self): assert f() == 4
    """
    found = blind(source, "TestIt::test_a")
    assert "test_other" not in found.text
    assert "test_b" not in found.text
    assert found.text.count("def helper") == 2
    assert found.text.index("from __future__") < found.text.index("trunkline_observer")


def test_names_are_not_mangled_inside_of_classes() -> None:
    assert "__trunkline" not in blind("class TestIt:\n    def test_a(self):\n        assert f() == 3\n", "TestIt::test_a").text


def test_files_are_made_of_the_tests_that_are_named() -> None:
    sources = {"tests/test_a.py": "def test_it():\n    assert f() == 3\n", "tests/test_b.py": "def test_it():\n    assert f()\n"}
    assert list(blind_files(sources, ["tests/test_a.py::test_it[1]", "tests/test_b.py::test_it"])) == ["tests/test_a.py"]
    assert blind_files({"tests/test_a.py": "def test_it(:\n"}, ["tests/test_a.py::test_it"]) == {}


@pytest.mark.parametrize(
    ("seen", "before", "is_hidden"),
    [
        ("[0, 4217]", [], True),
        ("[0, 4217]", ["[0, 4216]"], True),
        ("[0, 4217]", ["[0, 4217]"], False),
        ("[0, 42]", [], False),
        ("[0, true]", [], False),
        ('[0, ["list", []]]', [], False),
        ('[0, ["other", "Schema"]]', [], False),
        ("[0, 7]", [], False),
    ],
)
def test_an_answer_is_hidden_if_it_is_new_not_frequent_and_not_in_the_test(seen: str, before: list[str], is_hidden: bool) -> None:
    file = blind("def test_it():\n    assert f(7) == 4217\n")
    assert hides_answers(file, [seen], before) is is_hidden


def test_short_answers_hide_something_together() -> None:
    file = blind("def test_it():\n    assert f(7) == 12\n    assert f(8) == 14\n    assert f(9) == 16\n")
    assert hides_answers(file, ["[0, 12]", "[1, 14]", "[2, 16]"], [])
    assert not hides_answers(file, ["[0, 12]", "[1, 14]", "[2, 16]"], ["[0, 12]"])


def test_words_that_the_test_still_says_are_no_secret() -> None:
    assert hides_answers(blind("def test_it():\n    assert 'Usage: x' in f('run')\n"), ['[0, "Usage: x y"]'], [])
    assert not hides_answers(blind("def test_it():\n    assert 'Usage: x' in f('Usage: x')\n"), ['[0, "Usage: x y"]'], [])
    assert not hides_answers(blind("def test_it():\n    assert 'a' in f('run')\n"), ['[0, "a"]'], [])


def test_equal_values_are_one_and_others_are_not() -> None:
    assert plain(2.0) == plain(2) == 2
    assert plain({"b": 1, "a": {3, 1}}) == plain({"a": {1, 3}, "b": 1})
    assert plain((1,)) != plain([1])
    assert plain(float("nan")) == ["float", "nan"]
    assert plain(10**30) != plain(10**30 + 1)
    assert plain("<A object at 0x7f00deadbeef>") == plain("<A object at 0x7f00deadbe00>")
    assert plain(object()) == ["other", "object"]
    assert plain("x" * 3000) != plain("x" * 2999 + "y")


def test_values_that_hold_themselves_come_to_an_end() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert "large" in repr(plain(loop))


def test_an_exception_is_told_by_its_nearest_known_kind() -> None:
    class Own(LookupError):
        pass

    assert raised(Own("no x")) == ["raised", "LookupError", "no x"]
