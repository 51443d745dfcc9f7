"""What a sheet holds: copies that look alike, names that nobody mentions, and what is expected of each."""

from __future__ import annotations

import ast
import random
import textwrap
from collections import Counter

import pytest

from trunkline.tasks.swe.perturb import Probe, candidate_probes
from trunkline.tasks.swe.sheets import Sheet, function_of, make_sheets, plain_sheet, probe_sheet, split_test

FILE = "tests/test_area.py"
SOURCE = '''
"""A module."""
from __future__ import annotations

import unittest
from area import area
import pytest

SIDES = (1, 2)


@pytest.fixture
def test_side():
    return 3


def helper(x):
    return x


def test_first():
    assert area(3) == 9


async def test_second(test_side):
    assert helper(area(test_side)) == 9


class TestMore(unittest.TestCase):
    def setUp(self):
        self.side = 4

    def test_b(self):
        self.assertEqual(area(self.side), 16)

    def test_a(self):
        self.assertEqual(area(2), 4)


@pytest.mark.parametrize("side, size", [(1, 1), (5, 25)])
def test_table(side, size):
    assert area(side) == size


if __name__ == "__main__":
    unittest.main()
'''
TESTS = ("test_first", "test_second", "TestMore::test_a", "TestMore::test_b", "test_table[1-1]", "test_table[5-25]")
JUDGED = tuple(f"{FILE}::{name}" for name in TESTS)


def probes_of(sources: dict[str, str], *functions: str, most: int = 12) -> list[Probe]:
    found = []
    for function in functions:
        file, _, qualname = function.partition("::")
        found += candidate_probes(sources[file], file=file, qualname=qualname, rng=random.Random(function), most=most)
    return found


def sheet_of(source: str, *names: str, to_probe: tuple[str, ...] = (), seed: int = 0, **sources: str) -> Sheet:
    """One sheet of tests/test_area.py and other files of tests/; probed tests by name."""
    files = {FILE: textwrap.dedent(source)} | {f"tests/{name}.py": textwrap.dedent(text) for name, text in sources.items()}
    functions = [f"{FILE}::{name}" for name in to_probe]
    (sheet,) = make_sheets(
        files,
        judged=[f"{FILE}::{name}" for name in names],
        to_probe=functions,
        probes=probes_of(files, *functions),
        rng=random.Random(seed),
        num_sheets=1,
    )
    return sheet


def copies_of(sheet: Sheet, function: str) -> list[tuple[str, ast.AST, str]]:
    """(name, tree without its name, expected outcome) of each copy, in the sheet's order."""
    found = []
    for path, text in sheet.files.items():
        for node in ast.walk(ast.parse(text)):
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                    prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
                    expected = sheet.expected.get(f"{path}::{prefix}{child.name}")
                    if expected is not None and expected.original == function:
                        name, child.name = child.name, "x"
                        found.append((name, child, expected.outcome))
    return found


def only_file(sheet: Sheet) -> tuple[str, str]:
    """Path and text of the file that is no module of canaries alone."""
    ((path, text),) = [(path, text) for path, text in sheet.files.items() if path in sheet.origins]
    return path, text


def test_a_test_that_must_turn_has_four_copies_that_differ_in_one_constant_alone():
    sheet = sheet_of(SOURCE, *TESTS, to_probe=("test_first",))
    copies = copies_of(sheet, f"{FILE}::test_first")
    assert Counter(outcome for _, _, outcome in copies) == {"passed": 1, "failed": 3}
    assert len({ast.unparse(tree) for _, tree, _ in copies}) == 4
    for _, tree, _ in copies:
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant):
                node.value = 0
    assert len({ast.dump(tree) for _, tree, _ in copies}) == 1


def test_the_true_value_is_no_more_frequent_than_another_and_at_any_place():
    source = "def test_it():\n    assert f() == 1 and g() == 2"
    places, shares = Counter(), Counter()
    for seed in range(200):
        (sheet,) = make_sheets(
            {FILE: source},
            judged=[f"{FILE}::test_it"],
            to_probe=[f"{FILE}::test_it"],
            probes=[Probe(file=FILE, qualname="test_it", site=2, kind="constant", replacement=text, is_expected=True) for text in "34"],
            rng=random.Random(seed),
            num_sheets=1,
        )
        outcomes = [outcome for _, _, outcome in copies_of(sheet, f"{FILE}::test_it")]
        assert len(outcomes) == 4
        shares[outcomes.count("passed")] += 1
        places.update(place for place, outcome in enumerate(outcomes) if outcome == "passed")
    assert set(shares) == {1, 2}
    assert 200 / 3 * 0.6 <= shares[2] <= 200 / 3 * 1.4  # three values, four copies: the second copy falls to each alike
    assert all(abs(places[place] - sum(places.values()) / 4) < 25 for place in range(4))


def test_every_other_test_is_there_once_and_nothing_but_tests_is_renamed():
    path, text = only_file(sheet_of(SOURCE, *TESTS, to_probe=("test_first",)))
    assert path.startswith("tests/test_") and path != FILE
    names = [node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert {"test_side", "helper", "setUp"} <= set(names)
    assert not {"test_first", "test_second", "test_a", "test_b", "test_table"} & set(names)
    module = ast.parse(text)
    assert ast.get_docstring(module) == "A module."
    assert "SIDES = (1, 2)" in text and "if __name__ == '__main__':" in text
    assert isinstance(module.body[1], ast.ImportFrom) and module.body[1].module == "__future__"
    compile(text, path, "exec")


def test_each_test_has_its_expectation_and_different_functions_keep_their_order():
    sheet = sheet_of(SOURCE, *TESTS, to_probe=("test_first", "TestMore::test_b"))
    _, text = only_file(sheet)
    order = []
    for line in text.splitlines():
        if "def test_" in line:
            name = line.split("def ")[1].split("(")[0]
            known = [expected for key, expected in sheet.expected.items() if key.endswith(f"::{name}") and not expected.is_canary]
            order += [one.original.rpartition("::")[2] for one in known]
    assert list(dict.fromkeys(order)) == ["test_first", "test_second", "test_b", "test_a", "test_table"]
    assert Counter(order) == {"test_first": 4, "test_second": 1, "test_b": 4, "test_a": 1, "test_table": 1}


def test_methods_keep_their_alphabetical_order_too():
    sheet = sheet_of(SOURCE, *TESTS, to_probe=("TestMore::test_b", "TestMore::test_a"))
    names = sorted((name.rpartition("::")[2], expected.original) for name, expected in sheet.expected.items() if "::TestMore::" in name)
    assert [original.rpartition("::")[2] for _, original in names] == ["test_a"] * 4 + ["test_b"] * 4


def test_names_and_places_are_random_but_for_the_seed():
    texts = [only_file(sheet_of(SOURCE, *TESTS, to_probe=("test_first",), seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[2][0]


def test_a_sheet_has_canaries_in_a_module_of_their_own_and_among_the_tests():
    sheet = sheet_of(SOURCE, *TESTS)
    canaries = [(name.partition("::")[0], expected.outcome) for name, expected in sheet.expected.items() if expected.is_canary]
    own, inside = [[outcome for path, outcome in canaries if (path in sheet.origins) is is_inside] for is_inside in (False, True)]
    assert sorted(own) == sorted(inside) == ["failed", "passed"]
    assert set(sheet.arguments) == set(sheet.files)
    for name, expected in sheet.expected.items():
        if expected.is_canary:
            path, _, function = name.partition("::")
            space: dict[str, object] = {}
            node = next(one for one in ast.parse(sheet.files[path]).body if getattr(one, "name", "") == function)
            exec(ast.unparse(node), space)
            try:
                space[function]()
            except AssertionError:
                assert expected.outcome == "failed"
            else:
                assert expected.outcome == "passed"


def test_canaries_stay_out_of_a_module_whose_marks_may_ask_for_arguments():
    sheet = sheet_of("import pytest\npytestmark = pytest.mark.parametrize('x', [1])\ndef test_it(x):\n    assert x == 1", "test_it[1]")
    canaries = [name.partition("::")[0] for name, expected in sheet.expected.items() if expected.is_canary]
    assert len(canaries) == 2 and not set(canaries) & set(sheet.origins)


def test_tests_that_nobody_judges_are_left_out_unless_something_needs_them():
    source = """
    def test_judged():
        assert f() == 1

    def test_flaky():
        assert f() == 2

    def test_called():
        return 3

    def helper():
        return test_called()
    """
    sheet = sheet_of(source, "test_judged")
    path, text = only_file(sheet)
    assert "test_flaky" not in text and "def test_called" in text
    assert f"{path}::test_called" in sheet.unjudged


def test_a_test_whose_name_is_mentioned_keeps_one_true_copy_of_that_name():
    source = """
    import pytest

    def test_it():
        assert f() == 1

    @pytest.mark.dependency(depends=["test_it"])
    def test_after():
        assert f() == 2
    """
    sheet = sheet_of(source, "test_it", "test_after", to_probe=("test_it",))
    path, _ = only_file(sheet)
    assert sheet.expected[f"{path}::test_it"].outcome == "passed"
    assert Counter(outcome for _, _, outcome in copies_of(sheet, f"{FILE}::test_it")) == {"passed": 1, "failed": 3}
    assert any("test_it" in note for note in sheet.notes)


def test_inherited_tests_stay_as_they_are():
    source = """
    class Base:
        def test_shared(self):
            assert f() == 1

    class TestA(Base):
        def test_own(self):
            assert f() == 2
    """
    sheet = sheet_of(source, "TestA::test_shared", "TestA::test_own")
    path, text = only_file(sheet)
    assert "def test_shared" in text and "def test_own" not in text
    assert sheet.expected[f"{path}::TestA::test_shared"].original == f"{FILE}::TestA::test_shared"
    assert f"{path}::TestA" in sheet.unjudged
    assert any("not copied" in note for note in sheet.notes)


def test_a_base_class_in_another_file_keeps_its_tests_and_its_file_its_name():
    base = "class TestBase:\n    def test_shared(self):\n        assert f() == 1\n"
    source = "from tests.test_base import TestBase\n\nclass TestA(TestBase):\n    pass\n"
    sheet = sheet_of(source, "TestA::test_shared", test_base=base)
    assert sheet.files["tests/test_base.py"] == base
    assert "tests/test_base.py" not in sheet.arguments
    path = next(path for path, origin in sheet.origins.items() if origin == FILE)
    assert f"{path}::TestA::test_shared" in sheet.expected


def test_of_two_functions_of_one_name_the_last_is_copied_and_the_dead_one_is_gone():
    sheet = sheet_of("def test_it():\n    assert f() == 1\n\ndef test_it():\n    assert g() == 2\n", "test_it", to_probe=("test_it",))
    _, text = only_file(sheet)
    assert "assert f()" not in text
    assert text.count("assert g()") == 4


def test_a_function_in_a_branch_is_not_copied_and_said_not_to_be():
    sheet = sheet_of("if True:\n    def test_it():\n        assert f() == 1\n", "test_it", to_probe=("test_it",))
    path, text = only_file(sheet)
    assert "def test_it" in text
    assert sheet.expected[f"{path}::test_it"].outcome == "passed"
    assert any("defined elsewhere" in note for note in sheet.notes)


def test_a_file_that_does_not_parse_is_kept_and_said_to_be():
    source = "def test_it(:\n    pass\n"
    sheet = sheet_of(source, "test_it[a]", "TestA::test_b", to_probe=("test_it",))
    assert sheet.files[FILE] == source
    assert sheet.expected[f"{FILE}::test_it"].outcome == sheet.expected[f"{FILE}::TestA::test_b"].outcome == "passed"
    assert FILE in sheet.unjudged
    assert any("cannot be copied" in note for note in sheet.notes)


def test_names_of_functions_that_settings_make_tests_are_kept_at_their_head():
    sheet = sheet_of("def check_it():\n    assert f() == 1\n", "check_it")
    functions = [name.partition("::")[2] for name in sheet.expected]
    assert all(
        name.startswith("check_it_") or expected.is_canary for name, expected in zip(functions, sheet.expected.values(), strict=True)
    )
    assert sum(name.startswith("check_it_") for name in functions) == 5


def test_two_sheets_use_two_places_if_there_are_two():
    files = {FILE: "def test_it():\n    assert f() == 15\n    assert g() == 25\n"}
    function = f"{FILE}::test_it"
    for seed in range(8):
        sheets = make_sheets(
            files, judged=[function], to_probe=[function], probes=probes_of(files, function), rng=random.Random(seed), num_sheets=2
        )
        sites = [{expected.probe.site for expected in sheet.expected.values() if expected.probe} for sheet in sheets]
        assert all(len(one) == 1 for one in sites)
        assert sites[0] != sites[1]


def test_what_every_right_solution_notices_is_preferred_to_changed_inputs_and_those_to_a_turned_assert():
    base = {"file": FILE, "qualname": "test_it"}
    turned = Probe(**base, site=0, kind="negation", replacement="")
    inputs = [Probe(**base, site=1, kind="constant", replacement=text) for text in ("4", "5", "6")]
    expected = [Probe(**base, site=2, kind="constant", replacement="10", is_expected=True)]
    for offered, chosen in (([turned, *inputs, *expected], {2}), ([turned, *inputs], {1}), ([turned], {0})):
        (sheet,) = make_sheets(
            {FILE: "def test_it():\n    assert f(3) == 9"},
            judged=[f"{FILE}::test_it"],
            to_probe=[f"{FILE}::test_it"],
            probes=offered,
            rng=random.Random(0),
            num_sheets=1,
        )
        assert {one.probe.site for one in sheet.expected.values() if one.probe} == chosen


def test_some_tests_that_pass_before_and_after_have_a_changed_copy_as_well():
    files = {FILE: "".join(f"def test_{n}():\n    assert f() == {n}0\n" for n in range(1, 8))}
    names = [f"{FILE}::test_{n}" for n in range(1, 8)]
    (sheet,) = make_sheets(files, judged=names, to_probe=[], probes=probes_of(files, *names), rng=random.Random(0), num_sheets=1)
    counts = Counter((one.original, one.outcome) for one in sheet.expected.values() if not one.is_canary)
    assert all(counts[name, "passed"] == 1 for name in names)
    assert sum(counts[name, "failed"] for name in names) == 4


def test_a_probe_sheet_has_every_probe_once_and_nothing_true():
    files = {FILE: textwrap.dedent(SOURCE)}
    probes = probes_of(files, f"{FILE}::test_first", f"{FILE}::test_table")
    sheet = probe_sheet(files, probes)
    assert [expected.outcome for expected in sheet.expected.values()] == ["failed"] * len(probes)
    assert Counter(str(expected.probe) for expected in sheet.expected.values()) == Counter(map(str, probes))
    assert sheet.arguments == tuple(sheet.files)


def test_a_plain_sheet_is_the_files_as_they_are():
    sheet = plain_sheet({"b.py": "1", "a.py": "2"}, ["a.py"])
    assert (dict(sheet.files), sheet.arguments, dict(sheet.expected)) == ({"b.py": "1", "a.py": "2"}, ("a.py",), {})


def test_what_is_judged_must_be_among_the_sources():
    for judged in ([], ["other.py::test_it"]):
        with pytest.raises(ValueError, match="calibrate again"):
            make_sheets({FILE: SOURCE}, judged=judged, to_probe=[], probes=[], rng=random.Random(0))


def test_parameters_may_hold_brackets_and_colons():
    assert split_test("a[b].py::T::test_x[1::2[3]]") == ("a[b].py::T::test_x", "[1::2[3]]")
    assert function_of("t.py::test_x") == "t.py::test_x"
