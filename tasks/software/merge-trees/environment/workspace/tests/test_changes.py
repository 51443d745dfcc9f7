import pytest
from treediff import MISSING, Change, PatchError, apply, diff

OLD = {"name": "trunk", "size": {"width": 3, "height": 4}, "tags": ["a"]}
NEW = {"name": "trunk", "size": {"width": 5, "depth": 1}, "owner": {"id": 7}}


def test_differences_are_found_inside():
    assert diff(OLD, NEW) == [
        Change(("owner",), MISSING, {"id": 7}),
        Change(("size", "depth"), MISSING, 1),
        Change(("size", "height"), 4, MISSING),
        Change(("size", "width"), 3, 5),
        Change(("tags",), ["a"], MISSING),
    ]


def test_differences_are_carried_over():
    assert apply(OLD, diff(OLD, NEW)) == NEW
    assert OLD["size"] == {"width": 3, "height": 4}


def test_differences_can_be_shown():
    assert [str(change) for change in diff(OLD, NEW)][1:4] == ["+ size.depth = 1", "- size.height = 4", "~ size.width = 3 -> 5"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Change(("name",), MISSING, 1), "is there already"),
        (Change(("colour",), 1, 2), "is not there"),
        (Change(("name",), "twig", 2), "has another value"),
        (Change(("name", "first"), MISSING, 2), "is not in a tree"),
    ],
)
def test_a_change_that_does_not_fit(change, reason):
    with pytest.raises(PatchError) as caught:
        apply(OLD, [change])
    assert caught.value.reason == reason
