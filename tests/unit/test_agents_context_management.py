"""Which messages each method leaves, and how often a conversation asks."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trunkline.agents.context_config import ContextConfig
from trunkline.agents.context_management import load_method
from trunkline.agents.conversation import BAD_TASK, NONE_LEFT, Conversations
from trunkline.errors import ConfigError
from trunkline.run.agent_side import loop_command, loop_settings
from trunkline.run.recipe import load_recipe

ROOT = Path(__file__).parents[2]
TASK = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]


def turn(name: str, *, num_calls: int = 1) -> list[dict[str, Any]]:
    calls = [{"id": f"{name}{place}", "function": {"name": "look", "arguments": "{}"}} for place in range(num_calls)]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": f"of {call['id']}"} for call in calls]
    return [{"role": "assistant", "content": name, "tool_calls": calls}, *results]


TURNS = [turn("a"), turn("b", num_calls=2), turn("c")]
WHOLE = [*TASK, *TURNS[0], *TURNS[1], *TURNS[2]]


@pytest.mark.parametrize(
    ("settings", "used", "expected"),
    [
        ({"method": "keep_all"}, 10_000, WHOLE),
        ({"method": "sliding_window", "turns": 2}, 0, [*TASK, *TURNS[1], *TURNS[2]]),
        ({"method": "sliding_window", "turns": 3}, 0, WHOLE),
        ({"method": "sliding_window", "turns": 9}, 0, WHOLE),
        ({"method": "drop_all", "max_context": 100}, 30, WHOLE),
        ({"method": "drop_all", "max_context": 100}, 31, TASK),
        ({"method": "drop_all", "max_context": 100, "fraction": 0.5, "keep_last": True}, 51, [*TASK, *TURNS[2]]),
        ({"method": "summary", "max_context": 100}, 60, WHOLE),
    ],
)
def test_a_method_keeps_whole_turns_and_the_task(settings: dict[str, Any], used: int, expected: list[dict[str, Any]]) -> None:
    method = load_method(settings)
    before = [dict(message) for message in WHOLE]
    assert method.instruction(used) is None
    assert method.next_context(TASK, WHOLE, used, None) == expected
    assert before == WHOLE


class TaskAlone:
    """As in the Protocol's docstring."""

    def __init__(self, word: str) -> None:
        self.word = word

    def instruction(self, used: int) -> str | None:
        return None

    def next_context(self, task: Any, context: Any, used: int, said: str | None) -> Any:
        return [*task, {"role": "user", "content": self.word}]


def test_a_method_is_found_by_import_path_with_its_options() -> None:
    config = ContextConfig(method=f"{__name__}:TaskAlone", options={"word": "on"})
    method = load_method(config.settings(max_context=64))
    assert method.next_context(TASK, WHOLE, 0, None) == [*TASK, {"role": "user", "content": "on"}]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"method": "sliding_window", "fraction": 0.5}, "sliding_window does not honour fraction; it has turns"),
        ({"turns": 3}, "keep_all does not honour turns; it has no knobs"),
        ({"method": "drop_all", "instruction": "Sum up"}, "drop_all does not honour instruction; it has fraction, keep_last"),
        ({"method": "window"}, "no context management 'window'; choose one of keep_all, sliding_window, drop_all, summary"),
        ({"method": "no.such:Thing"}, "'no.such:Thing' cannot be imported"),
        ({"method": "json:NoSuch"}, "json has no 'NoSuch'"),
    ],
)
def test_a_knob_that_the_method_does_not_honour_is_an_error(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContextConfig(**knobs)


class Script:
    """A model that says what it is told to, and what it was asked."""

    def __init__(self, *replies: dict[str, Any]) -> None:
        self.replies = list(replies)
        self.bodies: list[dict[str, Any]] = []

    async def ask(self, body: dict[str, Any]) -> tuple[dict[str, Any], int] | None:
        self.bodies.append(body)
        return (self.replies.pop(0), 90) if self.replies else None

    def play(self, settings: dict[str, Any], *, max_turns: int = 9, **sub_agents: int) -> str:
        async def call_tool(call: dict[str, Any]) -> str:
            return f"of {call['id']}"

        async def together(work: Any) -> list[Any]:
            return [await one for one in work]

        method = load_method(settings)
        conversations = Conversations(self.ask, call_tool, together, max_turns=max_turns, method=method, **sub_agents)
        return asyncio.run(conversations.answer({"model": "m", "messages": TASK}))


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def test_a_summary_is_asked_of_the_model_and_stands_for_what_it_sums_up() -> None:
    script = Script(turn("a")[0], said("so far: x"), turn("b")[0], said("so far: y"), said("done"))
    assert script.play({"method": "summary", "max_context": 100, "instruction": "Sum up"}) == "done"
    first, asked, second, asked_again, last = script.bodies
    assert asked["messages"] == [*TASK, *TURNS[0], {"role": "user", "content": "Sum up"}]
    assert asked["tool_choice"] == "none" and "tool_choice" not in first and "tool_choice" not in second
    assert second["messages"] == [*TASK, {"role": "user", "content": "so far: x"}]
    assert asked_again["messages"][-1] == {"role": "user", "content": "Sum up"}
    assert last["messages"] == [*TASK, {"role": "user", "content": "so far: y"}]


def test_summaries_count_as_calls_of_the_model() -> None:
    script = Script(*[turn("a")[0], said("so far")] * 9)
    assert script.play({"method": "summary", "max_context": 100}, max_turns=5) == ""
    assert len(script.bodies) == 5


def delegating(*tasks: str) -> dict[str, Any]:
    calls = [{"id": f"d{place}", "function": {"name": "delegate", "arguments": task}} for place, task in enumerate(tasks)]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def test_a_sub_agent_begins_afresh_and_its_answer_is_the_result() -> None:
    script = Script(delegating('{"task": "find x"}'), said("x is 3"), said("done"))
    assert script.play({"method": "keep_all"}, depth=1, max_sub_agents=2) == "done"
    first, sub, last = script.bodies
    assert [tool["function"]["name"] for tool in first["tools"]] == ["delegate"]
    assert sub["messages"] == [{"role": "user", "content": "find x"}] and not sub.get("tools")
    assert last["messages"][-1] == {"role": "tool", "tool_call_id": "d0", "content": "x is 3"}


def test_sub_agents_beyond_the_limit_and_bad_arguments_are_refused() -> None:
    script = Script(delegating('{"task": "a"}', '["a"]', '{"task": "b"}', '{"task": "c"}'), said("1"), said("2"), said("done"))
    assert script.play({"method": "keep_all"}, depth=1, max_sub_agents=2) == "done"
    results = [message["content"] for message in script.bodies[-1]["messages"] if message["role"] == "tool"]
    assert results == ["1", BAD_TASK, "2", NONE_LEFT]


def test_delegate_is_a_tool_like_any_other_where_there_are_no_sub_agents() -> None:
    script = Script(delegating('{"task": "a"}'), said("done"))
    assert script.play({"method": "keep_all"}) == "done"
    assert script.bodies[-1]["messages"][-1]["content"] == "of d0" and "tools" not in script.bodies[0]


def test_what_a_sandbox_imports_for_it_is_built_in() -> None:
    program = "import sys; before = set(sys.modules); import trunkline.agents.conversation, trunkline.agents.context_management; "
    program += "print([name for name in set(sys.modules) - before if not name.startswith('trunkline')])"
    printed = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert printed.stdout.strip() == "['__future__']"


@pytest.mark.parametrize("section", ["agent.context.method=drop_all", "agent.sub_agents.depth=1"])
def test_another_agent_than_our_loop_has_no_context_management_and_no_sub_agents(section: str) -> None:
    with pytest.raises(ConfigError, match="is of our own loop, but the recipe names another agent"):
        load_recipe(ROOT / "recipes" / "quickstart.toml", [section, 'agent.command=["true"]'])


def test_managed_demonstrations_without_a_method_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"managed_share shows what agent\.context leaves"):
        load_recipe(ROOT / "recipes" / "quickstart.toml", ["cold_start.managed_share=0.5"])


def test_what_a_recipe_says_reaches_the_loop_in_a_sandbox() -> None:
    recipe = load_recipe(ROOT / "recipes" / "long-lookup.toml", ["agent.sub_agents.depth=2", "agent.sub_agents.limit=3"])
    assert json.loads(loop_command(loop_settings(recipe))[-1]) == {
        "max_turns": recipe.agent.max_turns,
        "context": {"method": "drop_all", "fraction": 0.7, "keep_last": True, "max_context": 96},
        "depth": 2,
        "max_sub_agents": 3,
    }
