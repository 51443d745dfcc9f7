import pytest
from plainconf import SettingsError, parse


def error_of(text):
    with pytest.raises(SettingsError) as caught:
        parse(text)
    return caught.value


def test_settings_without_a_section():
    assert parse("name = Trunk\n# size = 3\nsize: int = 7\n") == {"": {"name": "Trunk", "size": 7}}


def test_all_types():
    text = "[all]\na: str = 1\nb: int = -2\nc: float = 2.5\nd: switch = Off\ne: list = x, y,\n"
    assert parse(text)["all"] == {"a": "1", "b": -2, "c": 2.5, "d": False, "e": ["x", "y"]}


def test_a_continued_line():
    assert parse("hosts: list = alpha, \\\n    beta\n") == {"": {"hosts": ["alpha", "beta"]}}


def test_a_section_is_opened_again():
    assert parse("[a]\nx = 1\n[b]\nx = 2\n[ a ]\ny = 3") == {"": {}, "a": {"x": "1", "y": "3"}, "b": {"x": "2"}}


def test_an_error_names_its_line():
    error = error_of("x = 1\nnonsense\n")
    assert error.line == 2
    assert error.reason == "neither a section nor a setting: nonsense"


def test_blank_lines_and_comments_are_counted():
    error = error_of("# first\n\nx = 1\n\n# second\nnonsense\n")
    assert error.line == 6
    assert str(error) == "line 6: neither a section nor a setting: nonsense"


def test_continued_lines_are_counted():
    error = error_of("x = 1, \\\n 2, \\\n 3\ny = 1\ny = 2\n")
    assert error.line == 5
    assert error.reason == "y is set twice"


def test_a_continued_entry_is_named_by_its_first_line():
    error = error_of("x = 1\n\nnot \\\n# a\\\nsetting\n")
    assert error.line == 3
    assert error.reason == "neither a section nor a setting: not # a setting"


def test_a_backslash_at_the_end_of_the_text():
    assert parse("a = 1\nb = 2 \\") == {"": {"a": "1", "b": "2"}}
    assert error_of("\n\nb \\").line == 3


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("port: int = 80x0", "port is not of type int: 80x0"),
        ("ratio: float = half", "ratio is not of type float: half"),
        ("debug: switch = maybe", "debug is not of type switch: maybe"),
        ("port: int =", "port is not of type int: "),
    ],
)
def test_a_value_that_does_not_fit_its_type(entry, reason):
    error = error_of(f"[server]\n# here\n{entry}\n")
    assert error.line == 3
    assert error.reason == reason


def test_an_unknown_type_is_still_an_error():
    error = error_of("\nx: number = 1")
    assert error.line == 2
    assert error.reason == "unknown type number"
