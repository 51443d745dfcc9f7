import pytest
from dsv import TAB, Dialect, DsvError, read, read_records


def test_rows_and_fields():
    assert read("a,b\n1,\n\n,2") == [["a", "b"], ["1", ""], [""], ["", "2"]]


def test_a_delimiter_in_quotes_is_text():
    assert read('x,"a,b"\n') == [["x", "a,b"]]


def test_other_dialects():
    assert read("a,\tb\r\n", TAB) == [["a,", "b"]]
    assert read("'a;b';c", Dialect(delimiter=";", quote="'")) == [["a;b", "c"]]


def test_a_quote_that_is_not_closed():
    with pytest.raises(DsvError) as caught:
        read('a,b\n"c,d\n')
    assert caught.value.row == 2


def test_records():
    assert read_records("name,size\nant,1\nbee,2\n") == [{"name": "ant", "size": "1"}, {"name": "bee", "size": "2"}]
    with pytest.raises(DsvError):
        read_records("name,size\nant\n")


@pytest.mark.parametrize(("delimiter", "quote"), [("", '"'), (",", "ab"), (",", "\n"), ("|", "|")])
def test_a_dialect_that_cannot_be(delimiter, quote):
    with pytest.raises(ValueError):
        Dialect(delimiter, quote)
