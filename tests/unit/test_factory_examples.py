"""Examples out of failing tests: one claim each, with what it needs, in plain code."""

import textwrap

import pytest

from trunkline.tasks.factory.changed import Texts
from trunkline.tasks.factory.examples import examples_of

HEAD = "import pytest\n\nfrom parts.stock import take\n\n\n"


def shown(test, *, before="", functions=("test_it",), endings=()):
    return examples_of(Texts(before, HEAD + test), functions, packages={"parts"}, endings=endings)


def test_a_claim_is_shown_with_what_it_needs_and_no_more():
    test = "def test_it():\n    other = 1\n    stock = {'a': 3}\n    left = take(stock, 'a', 1)\n    assert left == 2\n    assert other\n"
    assert shown(test) == ["from parts.stock import take\nstock = {'a': 3}\nleft = take(stock, 'a', 1)\nassert left == 2"]


def test_of_more_claims_a_new_one_is_shown():
    old = "def test_it():\n    assert take({'a': 1}, 'a', 1) == 0\n"
    found = shown(old + "    assert take({'b': 1}, 'b', 1) == 0\n", before=HEAD + old)
    assert found == ["from parts.stock import take\nassert take({'b': 1}, 'b', 1) == 0"]


def test_only_one_claim_of_a_test_is_shown():
    assert "take({}, 'b', 2)" not in shown("def test_it():\n    assert take({}, 'a', 1)\n    assert take({}, 'b', 2)\n")[0]


def test_a_claim_that_shows_nothing_of_the_project_comes_with_all_that_is_before_it():
    found = shown("def test_it(capsys):\n    take({}, 'a', 1)\n    assert capsys.readouterr().out == 'x'\n")
    assert found == ["from parts.stock import take\ntake({}, 'a', 1)\nassert capsys.readouterr().out == 'x'"]


def test_functions_that_are_given_to_what_is_used_are_shown():
    given = "app = take({}, 'a', 1)\n@app.command()\ndef run():\n    return 3"
    found = shown(f"def test_it():\n{textwrap.indent(given, '    ')}\n    other = 1\n    assert app.call('run') == 3\n")
    assert found == [f"from parts.stock import take\n{given}\nassert app.call('run') == 3"]


def test_an_expected_exception_is_shown():
    found = shown("def test_it():\n    with pytest.raises(KeyError):\n        take({}, 'a', 1)\n")
    assert found == ["from parts.stock import take\nwith pytest.raises(KeyError):\n    take({}, 'a', 1)"]


def test_a_helper_of_the_file_is_shown_if_it_is_short_and_left_out_if_not():
    helper = "class Full(dict):\n    size = 3\n"
    test = "def test_it():\n    assert take(Full(), 'a', 1) == 0\n"
    claim = "assert take(Full(), 'a', 1) == 0"
    assert shown(f"{helper}\n\n{test}") == [f"from parts.stock import take\n{helper}{claim}"]
    long = helper + "".join(f"    size_{number} = 3\n" for number in range(30))
    assert shown(f"{long}\n\n{test}") == [f"from parts.stock import take\n{claim}"]


def test_claims_of_unittest_become_asserts():
    test = "class TestIt:\n    def test_it(self):\n        self.assertEqual(take({'a': 1}, 'a', 1), 0)\n"
    assert shown(test, functions=("TestIt::test_it",)) == ["from parts.stock import take\nassert take({'a': 1}, 'a', 1) == 0"]


def test_a_row_that_fails_is_shown_of_a_table():
    table = "@pytest.mark.parametrize('count, left', [(1, 2), (2, 1)])\n"
    test = f"{table}def test_it(count, left):\n    assert take({{'a': 3}}, 'a', count) == left\n"
    assert "count, left = (2, 1)" in shown(test, endings={"[2-1]"})[0]


def test_a_table_that_cannot_be_read_is_not_shown():
    test = "@pytest.mark.parametrize('count', make())\ndef test_it(count):\n    assert take({'a': 3}, 'a', count) == 1\n"
    assert [text.startswith("@pytest") for text in shown(test)] == [True]  # the whole function says more than a part of it


def test_what_is_too_long_is_left_out():
    lines = "".join(f"    stock[{number}] = take({{}}, 'a', {number})\n" for number in range(90))
    assert shown(f"def test_it():\n    stock = {{}}\n{lines}    assert stock == 1\n") == []


@pytest.mark.parametrize("text", ["def test_it(:\n", "x = 1\n"])
def test_where_there_is_no_such_test_nothing_is_shown(text):
    assert shown(text) == []
