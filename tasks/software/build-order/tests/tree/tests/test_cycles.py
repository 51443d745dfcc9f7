import buildorder
import pytest
from buildorder import BuildError, CycleError, Graph, order, read_rules


def cycle_of(graph, goals=None):
    with pytest.raises(CycleError) as caught:
        order(graph, goals)
    return caught.value.cycle


def test_a_cycle_is_reported():
    graph = Graph({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]})
    assert cycle_of(graph) == ["a", "b", "c"]


def test_the_message_shows_the_way_around():
    with pytest.raises(CycleError) as caught:
        order(Graph({"lib": ["tool"], "tool": ["gen"], "gen": ["lib"]}))
    assert str(caught.value) == "targets need each other: gen -> lib -> tool -> gen"
    assert isinstance(caught.value, BuildError)


def test_a_target_that_needs_itself():
    graph = Graph({"a": ["b"], "b": ["a", "b"]})
    assert cycle_of(graph) == ["b"]
    with pytest.raises(CycleError) as caught:
        order(graph)
    assert str(caught.value) == "targets need each other: b -> b"


def test_the_shortest_cycle_is_reported():
    graph = Graph({"a": ["b"], "b": ["c"], "c": ["a", "x"], "x": ["y"], "y": ["x"]})
    assert cycle_of(graph) == ["x", "y"]


def test_of_equally_short_cycles_the_alphabetically_first():
    graph = Graph({"m": ["z", "n"], "n": ["m"], "z": ["m"], "b": ["c"], "c": ["d"], "d": ["b"]})
    assert cycle_of(graph) == ["m", "n"]


def test_targets_that_only_lead_to_a_cycle_are_not_in_it():
    graph = Graph({"app": ["lib"], "lib": ["p", "q"], "p": ["q"], "q": ["p"]})
    assert cycle_of(graph, ["app"]) == ["p", "q"]


def test_a_cycle_that_the_goals_do_not_need_is_not_reported():
    graph = Graph({"a": ["a"], "s": ["t"], "t": ["u"], "u": ["s"]})
    assert cycle_of(graph, ["t"]) == ["s", "t", "u"]
    assert cycle_of(graph) == ["a"]


def test_stages_can_be_built_side_by_side():
    graph = read_rules("app: core ui\ncore: base\nui: base icons\nbase:\nicons:\ndocs: tool\ntool:\n")
    assert buildorder.stages(graph) == [["base", "icons", "tool"], ["core", "docs", "ui"], ["app"]]


def test_stages_of_goals():
    graph = Graph({"a": [], "b": ["a"], "c": ["a", "b"], "d": ["a"]})
    assert buildorder.stages(graph, ["c"]) == [["a"], ["b"], ["c"]]
    assert buildorder.stages(graph, ["d", "b"]) == [["a"], ["b", "d"]]
    assert buildorder.stages(graph, []) == []


def test_stages_of_a_cycle():
    with pytest.raises(CycleError) as caught:
        buildorder.stages(Graph({"a": [], "b": ["c"], "c": ["b", "a"]}))
    assert caught.value.cycle == ["b", "c"]
