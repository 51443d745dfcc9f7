import pytest
from dsv import COMMA, TAB, Dialect, DsvError, read, read_records, write


def test_a_doubled_quote_is_one_quote():
    assert read('"say ""hi""",x\n') == [['say "hi"', "x"]]
    assert read('"""",""\n') == [['"', ""]]


def test_a_quoted_field_may_hold_line_breaks():
    assert read('a,"one\ntwo"\nb,c\n') == [["a", "one\ntwo"], ["b", "c"]]
    assert read('"one\r\n\r\ntwo",x\r\ny,z\r\n') == [["one\r\n\r\ntwo", "x"], ["y", "z"]]


def test_a_quote_inside_a_plain_field_is_text():
    assert read('5" pipe,a""b\n') == [['5" pipe', 'a""b']]


def test_rows_are_counted_not_lines():
    with pytest.raises(DsvError) as caught:
        read('a,"1\n2\n3"\n"x"y,b\n')
    assert caught.value.row == 2
    assert caught.value.reason == "text after quote"
    with pytest.raises(DsvError) as caught:
        read_records('name,note\nant,"six\nlegs"\nbee\n')
    assert str(caught.value) == "row 3: 1 fields instead of 2"


def test_an_open_quote_reaches_the_end_of_the_text():
    with pytest.raises(DsvError) as caught:
        read('a,b\nc,"d\ne,f\n')
    assert caught.value.row == 2
    assert caught.value.reason == "unclosed quote"


def test_only_line_feeds_end_a_row():
    assert read("a\x0bb,c\u2028d\nx\x0cy\n") == [["a\x0bb", "c\u2028d"], ["x\x0cy"]]


def test_the_writer_doubles_quotes():
    assert write([['say "hi"', "x"]]) == '"say ""hi""",x\n'
    assert write([["it's", "a"]], Dialect(quote="'")) == "'it''s',a\n"


def test_the_writer_quotes_line_breaks():
    assert write([["a\nb", "c\rd", "e"]]) == '"a\nb","c\rd",e\n'


def test_the_writer_uses_the_line_end_of_its_dialect():
    assert write([["a", "b\n"], ["c", ""]], Dialect(newline="\r\n")) == 'a,"b\n"\r\nc,\r\n'


@pytest.mark.parametrize("dialect", [COMMA, TAB, Dialect(";", "'", "\r\n")])
def test_what_is_written_is_read_again(dialect):
    rows = [['"', "'", "''"], ["a,b;c\td", "e\r\nf\n"], [""], ["\r", 'g"h"', "'i'"]]
    assert read(write(rows, dialect), dialect) == rows
    assert len(read(write(rows[:2], dialect), dialect)) == 2
