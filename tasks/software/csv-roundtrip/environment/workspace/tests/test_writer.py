import pytest
from dsv import TAB, write


def test_fields_are_joined():
    assert write([["a", "b"], ["", "c"]]) == "a,b\n,c\n"


def test_a_delimiter_is_quoted():
    assert write([["a,b", "c d"]]) == '"a,b",c d\n'
    assert write([["a,b", "c\td"]], TAB) == 'a,b\t"c\td"\n'


def test_a_row_without_fields():
    with pytest.raises(ValueError):
        write([["a"], []])
