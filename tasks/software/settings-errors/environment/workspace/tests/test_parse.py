import pytest
from plainconf import SettingsError, parse


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
    with pytest.raises(SettingsError) as caught:
        parse("x = 1\nnonsense\n")
    assert caught.value.line == 2
    assert caught.value.reason == "neither a section nor a setting: nonsense"
