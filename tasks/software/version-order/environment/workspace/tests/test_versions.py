import pytest
from pinpoint import Requirement, Version, VersionError


@pytest.mark.parametrize("text", ["1.2.3", "0.0.0", "1.0.0-rc.1", "1.0.0-x-y.7+build.05", "2.10.0+sha.ab12"])
def test_a_version_is_written_as_it_was_read(text):
    assert str(Version.parse(text)) == text


@pytest.mark.parametrize("text", ["1.2", "1.2.3.4", "01.2.3", "1.2.3-", "1.2.3-a..b", "1.2.3-01", "v1.2.3", ""])
def test_what_is_no_version(text):
    with pytest.raises(VersionError):
        Version.parse(text)


def test_numbers_are_compared_as_numbers():
    assert Version.parse("1.10.0") > Version.parse("1.9.3")
    assert Version.parse("1.0.0") > Version.parse("1.0.0-rc.1")


def test_the_build_does_not_count():
    assert Version.parse("1.0.0+a") == Version.parse("1.0.0+b")
    assert len({Version.parse("1.0.0+a"), Version.parse("1.0.0")}) == 1


@pytest.mark.parametrize(
    ("text", "part", "raised"),
    [("1.4.2", "minor", "1.5.0"), ("2.0.0-rc.1", "patch", "2.0.0"), ("1.3.0-rc.1", "major", "2.0.0"), ("1.4.2+x", "patch", "1.4.3")],
)
def test_versions_are_raised(text, part, raised):
    assert str(Version.parse(text).bump(part)) == raised


@pytest.mark.parametrize(
    ("requirement", "version", "is_allowed"),
    [
        ("^1.4", "1.9.0", True),
        ("^1.4", "2.0.0", False),
        ("^0.3.1", "0.3.9", True),
        ("^0.3.1", "0.4.0", False),
        ("~2.1.3", "2.1.9", True),
        (">=1.0.0 <1.2.0 || 3.0.0", "3.0.0", True),
        (">= 1.0.0", "1.2.0-rc.1", False),
    ],
)
def test_requirements(requirement, version, is_allowed):
    assert Requirement.parse(requirement).allows(Version.parse(version)) is is_allowed
