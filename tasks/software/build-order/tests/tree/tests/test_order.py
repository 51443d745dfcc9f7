import pytest
from buildorder import BuildError, CycleError, Graph, UnknownTargetError, order, read_rules

RULES = """
app: core ui    # the program
core: base
ui: base icons
base:
icons:
docs: tool
tool:
"""


def test_what_is_needed_comes_first():
    assert order(read_rules(RULES)) == ["base", "core", "icons", "tool", "docs", "ui", "app"]


def test_only_what_the_goals_need():
    assert order(read_rules(RULES), ["ui"]) == ["base", "icons", "ui"]
    assert order(read_rules(RULES), []) == []


def test_a_circle_has_no_order():
    with pytest.raises(CycleError):
        order(Graph({"a": ["b"], "b": ["a"]}))


def test_a_circle_elsewhere_does_no_harm():
    graph = Graph({"a": ["b"], "b": ["a"], "c": ["d"], "d": []})
    assert order(graph, ["c"]) == ["d", "c"]


def test_a_target_without_a_rule():
    with pytest.raises(UnknownTargetError) as caught:
        Graph({"a": ["z", "y"]})
    assert caught.value.target == "y"


@pytest.mark.parametrize("text", ["a b: c", "a", ": b", "a:\na: b\nb:"])
def test_what_is_no_rule(text):
    with pytest.raises(BuildError):
        read_rules(text)
