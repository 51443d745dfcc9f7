"""Which side of a comparison is the code's under test, and which expectations can be read where a blind test runs."""

from __future__ import annotations

import textwrap

import pytest

from trunkline.tasks.swe.blind_checks import BlindFile
from trunkline.tasks.swe.blind_tests import blind_file


def blind(source: str, name: str = "test_it") -> BlindFile:
    found = blind_file(textwrap.dedent(source), frozenset({name}))
    assert found is not None
    return found


def of_body(body: str, arguments: str = "") -> BlindFile:
    head = "from pathlib import Path\nfrom shop import old, total\n\n"
    return blind(f"{head}def test_it({arguments}):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n")


@pytest.mark.parametrize(
    ("body", "is_seen"),
    [
        ("wanted = tuple(range(81, 84))\nassert wanted == total(5)", "total(5)"),
        ("got = total(5)\nassert sorted([83, 81]) == got", "got"),
        ("out = []\ntotal(5, into=out)\nassert list(range(3)) == out", "out"),
        ("def put(one):\n    out.append(one)\nout = []\ntotal(put)\nassert list(range(3)) == out", "out"),
        ("try:\n    total(5)\nexcept ValueError as error:\n    assert ', '.join('ab') == str(error)", "str(error)"),
        ("assert total(5) == total(6)", "total(5)"),
    ],
)
def test_what_the_code_under_test_made_is_seen_on_whichever_side_it_stands(body: str, is_seen: str) -> None:
    assert f"_trunkline_see(0, {is_seen})" in of_body(body).text


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ("rows = list(range(5))\nassert total(rows) == rows", ""),
        ("rows = list(range(5))\nassert total(rows) == tuple(rows)", ""),
        ("assert total(5) == expected", "expected"),
        ("assert total(5) == self.expected", "self"),
        ("assert total(5) == case['expected']", "case"),
        ("assert total(5) == old(5)", ""),
        ("expected = case[1]\nassert total(5) == expected", "case"),
        ("rows = list(range(5))\nassert rows == tuple(range(5))", ""),
        ("with open('expected') as file:\n    expected = file.read()\nassert total(5) == expected", ""),
        ("expected = Path('expected').read_text()\nassert total(5) == expected", ""),
    ],
)
def test_what_stays_there_under_a_name_or_comes_of_the_project_can_be_read(body: str, arguments: str) -> None:
    assert of_body(body, arguments).checks[0].is_open


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ("rows = range(5)\nexpected = [2 * row + 1 for row in rows]\nassert total(rows) == expected", ""),
        ("start = 80\nexpected = list(range(start, 83))\nassert total(5) == expected", ""),
        ("assert total(5) == 81", ""),
        ("assert total(rows) == rows[::-1]", "rows"),
        ("assert total(5) == 'the sum of {} is 5'.format(total.__name__)", ""),
        ("for given, expected in [(5, 81), (6, 83)]:\n    assert total(given) == expected", ""),
        ("assert runner.invoke(total).output == 'the sum'", "runner"),
    ],
)
def test_what_goes_with_the_expectation_cannot_be_read(body: str, arguments: str) -> None:
    found = of_body(body, arguments)
    assert not found.checks[0].is_open
    assert not any(number in found.text for number in ("81", "83", "80"))
    assert "expected" not in found.text or "None" in found.text


def test_constants_of_the_module_and_docstrings_that_only_expectations_need_go() -> None:
    found = blind(
        '''
        from shop import total

        EXPECTED = {"a": 333}
        RATE = 7

        def test_it():
            """It is 333."""
            assert total(RATE) == EXPECTED
        '''
    )
    assert "333" not in found.text
    assert "RATE = 7" in found.text
    assert not found.checks[0].is_open


def test_a_table_of_a_whole_class_stays_and_can_be_read() -> None:
    found = blind(
        """
        import pytest
        from shop import total

        @pytest.mark.parametrize("given, expected", [(5, 81)])
        class TestIt:
            def test_it(self, given, expected):
                assert total(given) == expected
        """,
        "TestIt::test_it",
    )
    assert found.checks[0].is_open
    assert "81" in found.literals


def test_what_a_star_brings_is_taken_for_the_projects() -> None:
    assert "_trunkline_see(0, total(5))" in blind("from shop import *\n\ndef test_it():\n    assert sorted('ab') == total(5)\n").text
