import pytest
from pinpoint import Requirement, Version

ORDER = [
    "1.0.0-1",
    "1.0.0-2",
    "1.0.0-10",
    "1.0.0-A",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.9",
    "1.0.0-alpha.11",
    "1.0.0-alpha.beta",
    "1.0.0-alpha1",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
]


def sorted_texts(texts):
    return [str(version) for version in sorted(Version.parse(text) for text in texts)]


def test_the_whole_order():
    found = sorted_texts(reversed(ORDER))
    assert found == ORDER
    assert found[2] == "1.0.0-10"


def test_numeric_identifiers_are_compared_as_numbers():
    assert sorted_texts(["2.0.0-rc.10", "2.0.0-rc.9", "2.0.0-rc.100"]) == ["2.0.0-rc.9", "2.0.0-rc.10", "2.0.0-rc.100"]


def test_numbers_come_before_words():
    assert sorted_texts(["1.0.0-a.--", "1.0.0-a.7", "1.0.0-a.-7"]) == ["1.0.0-a.7", "1.0.0-a.--", "1.0.0-a.-7"]


@pytest.mark.parametrize(
    ("low", "high"),
    [("1.0.0-rc.2", "1.0.0-rc.10"), ("1.0.0-99", "1.0.0--"), ("1.0.0-x.9.z", "1.0.0-x.10.a"), ("1.0.0-7.1", "1.0.0-70")],
)
def test_lower_and_higher(low, high):
    assert Version.parse(low) < Version.parse(high)
    assert not Version.parse(high) <= Version.parse(low)
    assert max(low, high, key=Version.parse) == high


def test_equality_is_not_touched():
    assert Version.parse("1.0.0-rc.1") == Version.parse("1.0.0-rc.1+exp")
    assert Version.parse("1.0.0-rc.1") != Version.parse("1.0.0-rc.01a")


def test_the_best_pre_release_is_found():
    versions = [Version.parse(f"2.0.0-rc.{number}") for number in (1, 2, 9, 10, 11)]
    assert str(Requirement.parse(">=2.0.0-rc.2").best(versions)) == "2.0.0-rc.11"
    assert str(Requirement.parse("<2.0.0-rc.10 >2.0.0-rc.2").best(versions)) == "2.0.0-rc.9"


def test_requirements_between_pre_releases():
    requirement = Requirement.parse(">=1.0.0-beta.2 <1.0.0-beta.11")
    assert [number for number in range(13) if requirement.allows(Version.parse(f"1.0.0-beta.{number}"))] == [2, 3, 4, 5, 6, 7, 8, 9, 10]
