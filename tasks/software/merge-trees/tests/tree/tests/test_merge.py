import pytest
import treediff
from treediff import MISSING, Change, apply, diff

BASE = {"name": "trunk", "size": {"width": 3, "height": 4}, "tags": ["a"]}


def changed(**keys):
    return {**BASE, **keys}


def test_changes_of_both_sides_are_taken():
    merge = treediff.merge(BASE, changed(name="branch"), changed(size={"width": 3, "height": 9}, new=1))
    assert merge.tree == {"name": "branch", "size": {"width": 3, "height": 9}, "tags": ["a"], "new": 1}
    assert merge.conflicts == []


def test_both_sides_change_the_same_inner_tree():
    merge = treediff.merge(BASE, changed(size={"width": 8, "height": 4}), changed(size={"width": 3, "depth": 2}))
    assert merge.tree["size"] == {"width": 8, "depth": 2}
    assert merge.conflicts == []


def test_the_same_change_on_both_sides_is_none():
    merge = treediff.merge(BASE, changed(tags=["b"], x={"y": 1}), changed(tags=["b"], x={"y": 1}))
    assert merge.tree == changed(tags=["b"], x={"y": 1})
    assert merge.conflicts == []


def test_a_conflict_keeps_our_value():
    merge = treediff.merge(BASE, changed(name="branch"), changed(name="twig"))
    assert merge.tree["name"] == "branch"
    assert merge.conflicts == [treediff.Conflict(("name",), "trunk", "branch", "twig")]


def test_a_removal_against_a_change():
    ours = {"name": "trunk", "size": {"width": 4}}
    theirs = changed(size={"width": 3, "height": 5}, tags=["a", "b"])
    merge = treediff.merge(BASE, ours, theirs)
    assert merge.tree == {"name": "trunk", "size": {"width": 4}}
    assert merge.conflicts == [
        treediff.Conflict(("size", "height"), 4, MISSING, 5),
        treediff.Conflict(("tags",), ["a"], MISSING, ["a", "b"]),
    ]


def test_a_removal_against_no_change():
    merge = treediff.merge(BASE, {"name": "trunk", "tags": ["a"]}, changed(tags=[]))
    assert merge.tree == {"name": "trunk", "tags": []}
    assert merge.conflicts == []


def test_a_tree_against_a_leaf_is_one_conflict():
    merge = treediff.merge(BASE, changed(size=12), changed(size={"width": 1}))
    assert merge.tree["size"] == 12
    assert [conflict.path for conflict in merge.conflicts] == [("size",)]


def test_both_sides_add_a_tree():
    merge = treediff.merge({"x": 1}, {"x": {"a": 1, "b": 2}, "n": {"p": 1}}, {"x": {"b": 3}, "n": {"q": {"r": 2}}})
    assert merge.tree == {"x": {"a": 1, "b": 2}, "n": {"p": 1, "q": {"r": 2}}}
    assert merge.conflicts == [treediff.Conflict(("x", "b"), MISSING, 2, 3)]


def test_nothing_is_shared_with_the_sides():
    theirs = changed(tags=["a", "b"])
    merge = treediff.merge(BASE, BASE, theirs)
    merge.tree["tags"].append("c")
    assert theirs["tags"] == ["a", "b"]
    assert BASE == {"name": "trunk", "size": {"width": 3, "height": 4}, "tags": ["a"]}


def test_inverted_changes_undo():
    new = changed(size={"depth": 1}, tags="none", owner={"id": 7})
    undone = treediff.invert(diff(BASE, new))
    assert undone[0] == Change(("tags",), "none", ["a"])
    assert [change.kind for change in undone] == ["replace", "add", "add", "remove", "remove"]
    assert apply(new, undone) == BASE


def test_changes_are_undone_from_the_last():
    changes = [Change(("a",), MISSING, {}), Change(("a", "b"), MISSING, 5)]
    assert treediff.invert(changes) == [Change(("a", "b"), 5, MISSING), Change(("a",), {}, MISSING)]
    assert apply({"a": {"b": 5}}, treediff.invert(changes)) == {}


@pytest.mark.parametrize(
    ("ours", "theirs", "merged", "num_conflicts"),
    [(1, 1, 1, 0), (1, 2, 2, 0), (2, 1, 2, 0), (3, 3, 3, 0), (2, 3, 2, 1), ({}, 3, {}, 1), ({}, {"x": 1}, {"x": 1}, 0)],
)
def test_one_key(ours, theirs, merged, num_conflicts):
    merge = treediff.merge({"k": 1}, {"k": ours}, {"k": theirs})
    assert merge.tree["k"] == merged
    assert len(merge.conflicts) == num_conflicts


@pytest.mark.parametrize("name", ["Conflict", "Merge", "invert", "merge"])
def test_the_new_names_can_be_imported(name):
    assert callable(getattr(treediff, name, None))
