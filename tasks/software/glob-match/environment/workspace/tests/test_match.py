import pytest
from pathglob import PatternError, Selection, match, select


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("src/*.py", "src/main.py", True),
        ("src/*.py", "src/app/main.py", False),
        ("*/*", "a/b", True),
        ("ma?n.*", "main.py", True),
        ("ma?n.*", "man.py", False),
        ("*a*b*", "xxaybaz", True),
        ("*a*b", "xxaybaz", False),
        ("*", ".hidden", True),
    ],
)
def test_wildcards(pattern, path, fits):
    assert match(pattern, path) is fits


@pytest.mark.parametrize("pattern", ["", "/a", "a//b", "a/"])
def test_patterns_have_no_empty_segments(pattern):
    with pytest.raises(PatternError) as caught:
        match(pattern, "a")
    assert caught.value.reason == "empty segment"


def test_paths_have_no_empty_segments():
    with pytest.raises(ValueError):
        match("*", "/a")


def test_the_last_pattern_that_fits_decides():
    patterns = ["src/*", "!src/t*", "src/tool.py"]
    assert select(patterns, ["src/main.py", "src/test.py", "src/tool.py", "docs"]) == ["src/main.py", "src/tool.py"]


def test_a_selection_is_read_from_text():
    selection = Selection.parse("# sources\n*.py\n\n!_*.py\n")
    assert selection.patterns == ("*.py", "!_*.py")
    assert selection.decided_by("a.py") == "*.py"
    assert selection.decided_by("_a.py") == "!"
    assert selection.decided_by("a.txt") is None
