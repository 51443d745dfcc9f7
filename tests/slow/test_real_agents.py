"""Published agents, unmodified, through whole episodes: installed from their registry, in the real sandbox, over the real gateway.

Only the model's words are a script (tests/scripted_scene.py); the recorded episode is what is looked at. `-s` prints it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.scripted_scene import WORD, OneTask, Script, Seen, in_turn, installed_or_skipped, says, work
from trunkline.agents.adapter import Adapter
from trunkline.types import Message

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.usefixtures("users_home")]

COUNT = "seq 1 5500"
SUBTASK = f"Count the letters of {WORD} and say the number."
SUMMARY = f"The word is {WORD}. It is in note.txt already; what is left is to read it back and to answer."


def episode(name: str, script: Script, folder: Path, *, max_context: int = 200_000, **variables: str) -> tuple[Seen, OneTask]:
    """One attempt of a shipped adapter, with further variables in its environment; what holds of every agent is asserted here."""
    adapter, task = installed_or_skipped(name), OneTask()
    if variables:
        environment = {**adapter.file.environment, **variables}
        adapter = Adapter(adapter.file.model_copy(update={"environment": environment}), adapter.path)
    seen = asyncio.run(work(adapter, script, folder, task=task, max_context=max_context))
    sys.stdout.write(f"\n{name}: {len(seen.calls)} calls, {dict(seen.lineage)}\n")
    for call in seen.calls:
        facts, tokens = call.facts, f"{call.num_shared} of {len(call.prompt_ids)} prompt tokens shared"
        sys.stdout.write(f"  {facts.wire} {facts.lineage}, {tokens}; not honoured: {list(facts.not_honoured)}\n")
    seen.require_success()
    seen.require_exact_tokens()
    assert {call.facts.wire for call in seen.calls} == {adapter.file.wire}
    return seen, task


@dataclasses.dataclass(frozen=True)
class Habits:
    """How an agent's own tools are called."""

    shell: str
    """The tool that runs a command."""
    argument: str
    """Its argument."""
    colour: str | None
    """What the task's tool is called; None where the agent has no MCP."""
    shown: str = f"\n{WORD}"
    """How a prompt shows the file's content."""
    shares_turns: bool = True
    """Whether one turn may call both tools."""


HABITS = {
    "mini-swe-agent": Habits("bash", "command", None, shown=f'"output": "{WORD}"'),
    "openai-agents": Habits("shell", "command", "colour"),
    "pydantic-ai": Habits("shell", "command", "colour"),
    "langchain": Habits("shell", "command", "colour"),
    "claude-code": Habits("Bash", "command", "mcp__task__colour"),
    "codex": Habits("exec_command", "cmd", "mcp__task__colour"),
}


@pytest.mark.parametrize("name", HABITS)
def test_an_agent_writes_reads_calls_the_tasks_tool_and_answers_in_one_unbroken_conversation(name, tmp_path):
    habits = HABITS[name]

    def shell(command: str) -> tuple[str, dict]:
        return habits.shell, {habits.argument: command}

    colour = [(habits.colour, {"word": WORD})] if habits.colour else []
    end = says("Submitting.", shell("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; cat note.txt")) if name == "mini-swe-agent" else None
    script = in_turn(
        says("First it is written.", shell(f"printf {WORD} > note.txt")),
        says("Now it is read.", shell("cat note.txt"), *colour),
        says("And listed.", shell("ls")),
        end or says(f"It holds {WORD}."),
    )
    seen, task = episode(name, script, tmp_path)
    assert seen.lineage == {"first": 1, "extension": 3}, "every prompt is the former one, its reply, and what is new"
    assert habits.shown in seen.prompts[2][len(seen.prompts[1]) :], "the file's content came back"
    assert "note.txt" in seen.prompts[3][len(seen.prompts[2]) :]
    assert task.num_tool_calls == len(colour)
    assert not colour or "its colour is violet" in seen.prompts[2]
    assert WORD in seen.answer


@pytest.mark.parametrize("name", [*HABITS, "smolagents"])
def test_an_agent_whose_budget_is_spent_ends_by_itself_long_before_its_deadline(name, tmp_path):
    habits = HABITS.get(name, HABITS["openai-agents"])
    script = in_turn(says("", (habits.shell, {habits.argument: "true"})))
    seen = asyncio.run(work(installed_or_skipped(name), script, tmp_path, max_calls=2))
    assert len(seen.calls) == 2
    assert seen.episode.status == "deadline" and seen.episode.failure.kind == "BudgetExceeded", seen.episode.failure


def test_smolagents_writes_its_own_calls_anew_so_that_each_call_is_a_branch(tmp_path):
    script = in_turn(
        says("First.", ("shell", {"command": f"printf {WORD} > note.txt"})),
        says("Then.", ("shell", {"command": "cat note.txt"}), ("colour", {"word": WORD})),
        says("", ("final_answer", {"answer": f"It holds {WORD}."})),
    )
    seen, task = episode("smolagents", script, tmp_path)
    assert len(seen.calls) == 3 and seen.lineage["extension"] == 0 and task.num_tool_calls == 1
    assert [call.facts.num_foreign for call in seen.calls] == [0, 1, 2], "turns that it reworded count as nobody's"
    assert f"Observation:\n{WORD}" in seen.prompts[2] and "its colour is violet" in seen.prompts[2]


def test_a_code_agent_acts_by_python_and_its_stop_strings_are_kept(tmp_path):
    script = in_turn(
        says(f"Thought: write it.\n<code>\nprint(shell('printf {WORD} > note.txt'))\n</code> and more that it never sees"),
        says("Thought: read it.\n<code>\ntext = shell(command='cat note.txt')\nprint(text, colour(word='x'))\n</code>"),
        says("Thought: done.\n<code>\nfinal_answer(text.split()[0])\n</code>"),
    )
    seen, task = episode("smolagents-code", script, tmp_path)
    assert len(seen.calls) == 3 and task.num_tool_calls == 1
    assert "</code>" in seen.calls[0].facts.asked["stop"] and seen.calls[0].facts.num_discarded > 0
    assert "never sees" not in seen.prompts[1] and "its colour is violet" in seen.prompts[2]


def test_claude_codes_sub_agent_is_a_fresh_conversation_beside_the_main_one(tmp_path):
    def script(prompt: str) -> Message:
        num_turns = prompt.count("<|im_start|>assistant\n") - 1
        if SUBTASK in prompt and "Write it to note.txt" not in prompt:
            return says("", ("Bash", {"command": f"printf {WORD} | wc -c", "description": "count"})) if num_turns == 0 else says("Ten.")
        if num_turns == 0:
            # It would run beside the main conversation; waited for, the order of calls is the same every time.
            asked = {"description": "count", "prompt": SUBTASK, "subagent_type": "general-purpose", "run_in_background": False}
            return says("", ("Agent", asked))
        return says("", ("Bash", {"command": f"printf {WORD} > note.txt", "description": "write"})) if num_turns == 1 else says(WORD)

    seen, _ = episode("claude-code", script, tmp_path)
    assert seen.lineage == {"first": 1, "fresh": 1, "extension": 3}
    main = [call for call, prompt in zip(seen.calls, seen.prompts, strict=True) if "Write it to note.txt" in prompt]
    assert len(main) == 3 and main[1].parent_id == main[0].completion_id, "the main conversation goes on where it was"
    assert "Ten." in seen.prompts[3]


def test_codex_sub_agent_is_a_conversation_of_its_own(tmp_path):
    def script(prompt: str) -> Message:
        num_turns = prompt.count("<|im_start|>assistant\n") - 1
        if "Write it to note.txt" not in prompt:
            return says("", ("exec_command", {"cmd": f"printf {WORD} | wc -c"})) if num_turns == 0 else says("Ten.")
        if num_turns == 0:
            return says("", ("multi_agent_v1__spawn_agent", {"message": SUBTASK}))
        agent = re.findall(r'agent_id":"([0-9a-f-]+)"', prompt)[-1:]
        return says("", ("multi_agent_v1__wait_agent", {"targets": agent, "timeout_ms": 60_000})) if num_turns == 1 else says(WORD)

    seen, _ = episode("codex", script, tmp_path)
    sub = [call for call, prompt in zip(seen.calls, seen.prompts, strict=True) if "Write it to note.txt" not in prompt]
    assert len(sub) == 2 and sub[0].parent_id is None and sub[1].parent_id == sub[0].completion_id
    assert len(seen.calls) == 5 and '{"completed":"Ten."}' in seen.prompts[4]


def _compacting(prompt_of_summary: str, tool: str, argument: str, *, prints: Sequence[str] = (COUNT,), summary: str = SUMMARY) -> Script:
    """Writes, prints much, reads; says a summary when it is asked for one."""
    turns = in_turn(
        says("", (tool, {argument: f"printf {WORD} > note.txt"})),
        *(says("", (tool, {argument: command})) for command in prints),
        says("", (tool, {argument: "cat note.txt"})),
        says(f"It holds {WORD}."),
    )

    def script(prompt: str) -> Message:
        asked = prompt[prompt.rfind("<|im_start|>user") :]
        return says(summary) if prompt_of_summary in asked else turns(prompt)

    return script


def _require_compaction(seen: Seen) -> None:
    sizes = [len(call.prompt_ids) for call in seen.calls]
    after = [place for place, call in enumerate(seen.calls) if call.facts.lineage == "compacted" and SUMMARY in seen.prompts[place]]
    assert after, seen.lineage
    place = after[0]
    assert seen.calls[place].parent_id is None and sizes[place] < max(sizes[:place]), "a new, shorter branch"
    assert seen.lineage["extension"] >= 2


def test_claude_code_compacts_its_history_and_goes_on(tmp_path):
    script = _compacting(
        "an <analysis> block followed by a <summary> block", "Bash", "command", summary=f"<summary>\n{SUMMARY}\n</summary>"
    )
    # Half of the smallest window that it takes: its own prompt has some 28,000 tokens of the test's vocabulary.
    seen, _ = episode("claude-code", script, tmp_path, max_context=100_000, CLAUDE_AUTOCOMPACT_PCT_OVERRIDE="50")
    _require_compaction(seen)


def test_codex_compacts_its_history_and_goes_on(tmp_path):
    script = _compacting("CONTEXT CHECKPOINT COMPACTION", "exec_command", "cmd")
    seen, _ = episode("codex", script, tmp_path, max_context=20_000)
    _require_compaction(seen)


def test_langchain_summarises_its_history_and_goes_on(tmp_path):
    # It is summarised before a call whose history has, by its own count of four characters a token, half of the context.
    script = _compacting("Messages to summarize", "shell", "command", prints=["seq 1 800"] * 4)
    seen, _ = episode("langchain", script, tmp_path, max_context=6000)
    _require_compaction(seen)
