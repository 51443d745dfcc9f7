"""Which changes are worth building, by paths and size."""

from __future__ import annotations

import pytest

from tests.index_scene import Spoken
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.selection import Size, check_change


class OtherTongue(Spoken):
    name = "javascript"

    def role_of(self, path: str) -> str:
        return "test" if path.endswith(".test.js") else "source" if path.endswith(".js") else "other"


def cause(lines: dict[str, int], *, size: Size | None = None) -> str:
    with pytest.raises(Rejection) as refused:
        check_change(lines, [Spoken(), OtherTongue()], size or Size())
    return refused.value.cause


def test_source_and_tests_of_one_language_make_a_candidate() -> None:
    check_change({"a.js": 3, "a.test.js": 4, "README.md": 5000}, [Spoken(), OtherTongue()], Size())


def test_source_of_one_language_and_tests_of_another_do_not() -> None:
    assert cause({"a.js": 3, "tests/test_a.py": 4}) == "changes no source"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ({"a.py": 3, "README.md": 1}, "changes no tests"),
        ({"tests/test_a.py": 3, "README.md": 1}, "changes no source"),
        ({"README.md": 1}, "changes no tests"),
        ({"a.py": 3, "tests/test_a.py": 20_000}, "change too large"),
        ({**{f"m{number}.py": 1 for number in range(60)}, "tests/test_a.py": 1}, "change too large"),
    ],
)
def test_what_is_missing_is_said(lines: dict[str, int], expected: str) -> None:
    assert cause(lines) == expected
