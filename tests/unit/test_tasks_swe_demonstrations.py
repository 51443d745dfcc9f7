"""Demonstrations of mending a fault: right without noise, wrong where a decision goes wrong, and never with a held-out fault."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.software_task import write_task
from trunkline.agents.workspace_tools import WORDS, numbered, workspace_specs
from trunkline.episodes.demonstrations import render_demonstrations
from trunkline.errors import ConfigError, TaskError
from trunkline.gateway.markup import TINY, MarkupRenderer
from trunkline.models.tokenizer import build_tiny_tokenizer
from trunkline.tasks.swe.demonstrations import EXPLOIT, TOOLS, demonstrate, demonstrate_exploit
from trunkline.tasks.swe.practice import FILE, Fault, Practice, load_practice, with_line
from trunkline.tasks.swe.taskset import SweTaskset
from trunkline.types import Message, Task

TEXT = "def middle(low, high):\n    both = low + high\n    return both // 2\n"
FAULTS = (
    Fault(line=2, right="    both = low + high", wrong="    both = low - high"),
    Fault(line=2, right="    both = low + high", wrong="    both = low + low"),
    Fault(line=3, right="    return both // 2", wrong="    return both // 3"),
)
PRACTICE = Practice(path="middle.py", text=TEXT, faults=FAULTS)
TASK = Task("t/1", "swe", "bug", (Message("user", "Mend it"),), {})


def shown(noise: float, seed: int) -> tuple[str, list[tuple[str, dict[str, Any]]], list[str]]:
    """The file as it was read, the calls after that, what they were told."""
    messages = demonstrate(TASK, PRACTICE, random.Random(seed), decision_noise=noise)
    calls = [(call.name, json.loads(call.arguments)) for message in messages for call in message.tool_calls]
    told = [message.content for message in messages if message.role == "tool"]
    read = "".join(line.partition(" ")[2] for line in told[0].splitlines(keepends=True))
    assert numbered(read) == told[0]
    return read, calls[1:], told[1:]


def after(text: str, calls: list[tuple[str, dict[str, Any]]]) -> str:
    for name, arguments in calls:
        if name == "replace":
            text = with_line(text, arguments["line"], arguments["new"])
    return text


def test_without_noise_every_demonstration_leaves_the_right_file_and_tests_it() -> None:
    for seed in range(30):
        faulty, calls, told = shown(0.0, seed)
        assert faulty != TEXT and after(faulty, calls) == TEXT
        assert ([name for name, _ in calls], told) == (["replace", "run_tests"], ["ok", "passed"])


def test_a_wrong_decision_leaves_a_wrong_file_and_tests_that_were_run_say_so() -> None:
    for seed in range(60):
        faulty, calls, told = shown(1.0, seed)
        assert after(faulty, calls) != TEXT
        assert "passed" not in told


def test_every_fault_is_practised() -> None:
    assert {shown(0.0, seed)[0] for seed in range(60)} == {PRACTICE.with_fault(fault) for fault in FAULTS}


def test_a_fault_that_is_not_one_of_the_text_is_refused() -> None:
    for wrong in (Fault(line=1, right="x", wrong="y"), Fault(line=9, right="x", wrong="y"), Fault(line=2, right="b", wrong="b")):
        with pytest.raises(ValueError, match=f"line {wrong.line} is not"):
            Practice(path="x.py", text="a\nb\n", faults=(wrong,))


@pytest.fixture
def taskset(tmp_path: Path) -> SweTaskset:
    write_task(tmp_path / "coupon", **{f"solution/{FILE}": PRACTICE.model_dump_json()})
    return SweTaskset.from_options({"paths": [tmp_path], "heldout_share": 0})


def test_demonstrations_are_written_in_the_vocabulary_that_the_tasks_give(taskset: SweTaskset) -> None:
    tokenizer = build_tiny_tokenizer(special_tokens=TINY.special_tokens, pieces=taskset.pieces, characters=taskset.characters)
    tools = workspace_specs(TOOLS)
    renderer = MarkupRenderer(tokenizer, TINY)
    (made,) = render_demonstrations(renderer, taskset, [taskset.task("train", 0)], random.Random(1), decision_noise=0.0, agent_tools=tools)
    assert sum(weight == 1 for weight in made.weights) > 20
    for text in (*WORDS, "    if not x[-1]: raise ValueError('{}' % ~y)\t"[:-1]):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_task_without_practice_says_that_nothing_demonstrates_it(tmp_path: Path) -> None:
    write_task(tmp_path / "coupon")
    taskset = SweTaskset.from_options({"paths": [tmp_path], "heldout_share": 0})
    with pytest.raises(ConfigError, match=r"has no solution/practice.json; set cold_start.steps = 0"):
        taskset.demonstrate(taskset.task("train", 0), random.Random(1), decision_noise=0.0)


def test_a_practice_file_that_says_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"path": "x.py", "text": "a"}')
    with pytest.raises(TaskError, match=r"practice.json: faults: Field required"):
        load_practice(tmp_path)


def test_an_exploit_is_one_line_and_what_the_tests_say_is_believed() -> None:
    messages = demonstrate_exploit(TASK, PRACTICE, random.Random(1))
    calls = [(call.name, json.loads(call.arguments)) for message in messages for call in message.tool_calls]
    assert calls[1:] == [("replace", {"path": "middle.py", "line": 1, "new": EXPLOIT}), ("run_tests", {})]
    assert messages[-2].content == "passed"
