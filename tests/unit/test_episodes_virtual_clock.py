"""The virtual clock on records whose times are worked out by hand: a token takes 0.1 s, a look-up 1 s, a crawl 5 s."""

from __future__ import annotations

import json

import pytest

from trunkline.agents.openai_shape import wire_tool
from trunkline.episodes.virtual_clock import CallTime, completion_time, latencies, timeline
from trunkline.types import (
    Completion,
    Generation,
    Message,
    MessageNode,
    PolicyVersion,
    SamplingParams,
    ToolCall,
    ToolSpec,
    VersionSpan,
)

TOOL_S = {"look_up": 1.0, "crawl": 5.0, "delegate": 0.0}


class Record:
    """An episode's tree and completions, grown turn by turn."""

    def __init__(self) -> None:
        self.messages: list[MessageNode] = []
        self.completions: list[Completion] = []

    def say(self, role: str, content: str, parent: int | None) -> int:
        self.messages.append(MessageNode(Message(role, content), parent))  # type: ignore[arg-type]
        return len(self.messages) - 1

    def sample(
        self, prompt: int, num_tokens: int, *calls: tuple[str, str], parent: Completion | None = None, session: str = "main"
    ) -> Completion:
        made = tuple(ToolCall(f"c{place}", name, json.dumps({"text": text})) for place, (name, text) in enumerate(calls))
        self.messages.append(MessageNode(Message("assistant", "", made), prompt))
        generation = Generation((1,) * num_tokens, (-0.5,) * num_tokens, "stop", (VersionSpan(0, num_tokens, PolicyVersion(1, 0)),))
        completion = Completion(
            f"k{len(self.completions)}",
            session,
            (1,),
            generation,
            SamplingParams(99),
            prompt_node=prompt,
            reply_node=len(self.messages) - 1,
            parent_id=None if parent is None else parent.completion_id,
        )
        self.completions.append(completion)
        return completion

    def go_on(self, parent: Completion, num_tokens: int, *calls: tuple[str, str], results: int = 1) -> Completion:
        node = parent.reply_node
        for number in range(results):
            node = self.say("tool", f"result {number}", node)
        return self.sample(node, num_tokens, *calls, parent=parent, session=parent.session_id)

    def seconds(self) -> float:
        return completion_time(self.completions, self.messages, tool_s=TOOL_S, seconds_per_token=0.1)

    def times(self) -> tuple[CallTime, ...]:
        return timeline(self.completions, self.messages, tool_s=TOOL_S, seconds_per_token=0.1)


@pytest.fixture
def record() -> Record:
    record = Record()
    record.say("user", "How many people live in A and in B?", None)
    return record


def test_nothing_takes_no_time() -> None:
    assert Record().seconds() == 0.0


def test_an_answer_takes_its_tokens(record: Record) -> None:
    record.sample(0, 12)
    assert record.seconds() == pytest.approx(1.2)


def test_turns_add_up(record: Record) -> None:
    first = record.sample(0, 10, ("look_up", "A"))
    second = record.go_on(first, 10, ("look_up", "B"))
    record.go_on(second, 5)
    assert record.seconds() == pytest.approx(1.0 + 1 + 1.0 + 1 + 0.5)
    assert record.times()[1] == CallTime(pytest.approx(2.0), pytest.approx(3.0), pytest.approx(4.0))


def test_calls_of_one_turn_overlap_so_that_the_slowest_counts(record: Record) -> None:
    first = record.sample(0, 20, ("look_up", "A"), ("crawl", "B"), ("look_up", "C"))
    record.go_on(first, 5, results=3)
    assert record.seconds() == pytest.approx(2.0 + 5 + 0.5)


def test_an_unknown_tool_takes_no_time(record: Record) -> None:
    record.go_on(record.sample(0, 10, ("nonsense", "A")), 10)
    assert record.seconds() == pytest.approx(2.0)


def test_calls_that_end_an_attempt_are_waited_for(record: Record) -> None:
    record.sample(0, 10, ("crawl", "A"))
    assert record.seconds() == pytest.approx(6.0)


def test_sub_agents_that_one_turn_begins_overlap(record: Record) -> None:
    main = record.sample(0, 10, ("delegate", "find the population of A"), ("delegate", "find the population of B"))
    ask_a, ask_b = (record.say("user", f"find the population of {name}", None) for name in "AB")
    a = record.sample(ask_a, 10, ("crawl", "A"), session="a")
    b = record.sample(ask_b, 10, ("look_up", "B"), session="b")
    record.go_on(b, 10)
    record.go_on(a, 10)
    record.go_on(main, 10, results=2)
    # 1 s for the turn; a: 1 + 5 + 1, b beside it: 1 + 1 + 1; then 1 s for the answer.
    assert record.seconds() == pytest.approx(1 + 7 + 1)


def test_a_sub_agent_of_a_sub_agent_is_waited_for_by_both(record: Record) -> None:
    main = record.sample(0, 10, ("delegate", "find the population of A"))
    outer = record.sample(record.say("user", "find the population of A", None), 10, ("delegate", "read the census of A"), session="o")
    inner = record.sample(record.say("user", "read the census of A", None), 10, ("crawl", "A"), session="i")
    record.go_on(inner, 10)
    record.go_on(outer, 10)
    record.go_on(main, 10)
    assert record.seconds() == pytest.approx(1 + 1 + (1 + 5 + 1) + 1 + 1)


def test_a_sub_agent_still_at_work_is_not_waited_for(record: Record) -> None:
    main = record.sample(0, 10, ("delegate", "watch the population of A"))
    watch = record.say("user", "watch the population of A", None)
    answer = record.go_on(main, 10)
    watching = record.sample(watch, 10, ("crawl", "A"), session="w")
    times = record.times()
    assert record.completions == [main, answer, watching]
    assert times[1].start_s == pytest.approx(1.0)
    assert times[2].start_s == pytest.approx(2.0), "its call is answered, so nothing shows that it began before"


def test_sub_agents_of_one_turn_after_the_other_add_up(record: Record) -> None:
    first = record.sample(0, 10, ("delegate", "find the population of A"))
    record.sample(record.say("user", "find the population of A", None), 30, session="a")
    second = record.go_on(first, 10, ("delegate", "find the population of B"))
    record.sample(record.say("user", "find the population of B", None), 30, session="b")
    record.go_on(second, 10)
    assert record.seconds() == pytest.approx(1 + 3 + 1 + 3 + 1)


def test_a_rewritten_history_comes_after_all_before_it(record: Record) -> None:
    first = record.sample(0, 10, ("crawl", "A"))
    record.go_on(first, 10, ("look_up", "B"))
    record.sample(record.say("user", "so far: A has 7.7e6", 0), 10)
    assert record.seconds() == pytest.approx(1 + 5 + 1 + 1 + 1)


def test_a_sub_agent_with_a_short_task_is_known_by_a_context_that_is_the_task(record: Record) -> None:
    main = record.sample(0, 10, ("delegate", "A"), ("delegate", "B"))
    for name in "AB":
        record.sample(record.say("user", name, None), 30)
    record.go_on(main, 10, results=2)
    assert record.seconds() == pytest.approx(1 + 3 + 1)


def test_a_short_argument_in_a_fresh_context_makes_no_sub_agent(record: Record) -> None:
    record.sample(0, 10, ("crawl", "A"))
    record.sample(record.say("user", "summary: A is asked for", None), 10)
    assert record.seconds() == pytest.approx(1 + 5 + 1)


def test_a_request_made_twice_is_made_side_by_side(record: Record) -> None:
    first = record.sample(0, 10, ("look_up", "A"))
    record.go_on(first, 10)
    record.go_on(first, 20)
    assert record.seconds() == pytest.approx(1 + 1 + 2)


def test_latencies_are_those_that_tools_declare() -> None:
    assert latencies([ToolSpec("look_up", "", {}, latency_s=1.5), ToolSpec("free", "", {})]) == {"look_up": 1.5, "free": 0.0}


def test_a_latency_is_not_told_to_the_model() -> None:
    slow, fast = (ToolSpec("look_up", "Looks up", {"type": "object"}, latency_s=seconds) for seconds in (1.5, 0.0))
    assert wire_tool(slow) == wire_tool(fast)
