import pytest
from pathglob import PatternError, Selection, match, select

PATHS = ["main.py", "src/main.py", "src/app/main.py", "src/app/view/main.pyi", "docs/index.md", "src"]


def chosen(pattern, paths=PATHS):
    return [path for path in paths if match(pattern, path)]


def test_two_stars_are_any_number_of_segments():
    assert chosen("**/main.py") == ["main.py", "src/main.py", "src/app/main.py"]
    assert chosen("src/**/main.py") == ["src/main.py", "src/app/main.py"]
    assert chosen("src/**") == ["src/main.py", "src/app/main.py", "src/app/view/main.pyi", "src"]
    assert chosen("**") == PATHS


def test_two_stars_may_stand_twice():
    assert chosen("**/app/**/main.*") == ["src/app/main.py", "src/app/view/main.pyi"]
    assert chosen("**/**/src/**/*.md") == []


def test_two_stars_inside_a_segment_are_one():
    assert chosen("src/ma**n.py") == ["src/main.py"]
    assert chosen("**.py") == ["main.py"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("x[abc]", ["xa", "xb"]),
        ("x[!abc]", ["xz", "x-", "x]", "x!"]),
        ("x[a-y]", ["xa", "xb"]),
        ("x[a-ay-z]", ["xa", "xz"]),
        ("x[-z]", ["xz", "x-"]),
        ("x[z-]", ["xz", "x-"]),
        ("x[]a]", ["xa", "x]"]),
        ("x[!]-]", ["xa", "xb", "xz", "x!"]),
        ("x[a!]", ["xa", "x!"]),
        ("x[z-a]", []),
        ("*[*?]*", ["?", "a*c"]),
    ],
)
def test_sets_of_characters(pattern, names):
    assert chosen(pattern, ["xa", "xb", "xz", "x-", "x]", "x!", "x", "?", "a*c"]) == names


def test_alternatives():
    assert chosen("src/{main,app/main}.py") == ["src/main.py", "src/app/main.py"]
    assert chosen("{docs,src}/{index,main}.{md,py}") == ["src/main.py", "docs/index.md"]
    assert chosen("src{,/**/*.pyi}") == ["src/app/view/main.pyi", "src"]
    assert chosen("{main.py}") == ["main.py"]


def test_alternatives_in_selections():
    assert select(["**/*.{py,pyi}", "!**/app/**"], PATHS) == ["main.py", "src/main.py"]
    assert Selection(("*.md", "{src,docs}/**")).decided_by("docs/index.md") == "{src,docs}/**"


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("src/[ab", "set is not closed"),
        ("[]", "set is not closed"),
        ("a/x[!]/b]", "set is not closed"),
        ("{a,b", "alternatives are not closed"),
        ("{a,{b,c}}", "alternatives in alternatives"),
        ("a/{b,/c}", "empty segment"),
    ],
)
def test_patterns_that_cannot_be(pattern, reason):
    with pytest.raises(PatternError) as caught:
        match(pattern, "none/of/these")
    assert caught.value.reason == reason
    assert caught.value.pattern == pattern


def test_a_closing_sign_alone_is_itself():
    assert match("a]b", "a]b")
    assert match("a}b,c", "a}b,c")
    assert not match("a]", "a}")
