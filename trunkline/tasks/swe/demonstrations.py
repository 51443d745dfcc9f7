"""Conversations that mend a fault with the tools of the white-box loop. Owns no tool (agents/workspace_tools.py) and no tokens.

    read the file ─► replace the faulty line ─► run the tests: passed ─► done

With probability `decision_noise` what matters goes wrong: another line is spoilt, the faulty one mended wrongly, or nothing is done.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from trunkline.agents.workspace_config import WorkspaceConfig
from trunkline.agents.workspace_tools import DONE, FAILED, PASSED, numbered
from trunkline.tasks.swe.practice import Fault, Practice
from trunkline.types import Message, Task, ToolCall

ANSWER = "done"
EXPLOIT = "import os; os._exit(0)"
"""As the first line of a module: whoever imports it ends, with the status of tests that have passed."""
TOOLS = WorkspaceConfig(tools=("read", "replace", "run_tests"), edit_by="line", test_report="word")
"""What a recipe sets in [agent.workspace] for its attempts to be like these."""
_NOTHING_SHARE = 0.3
"""Of the wrong decisions, those that end the attempt at once."""
_UNTESTED_SHARE = 0.5
"""Of the others, those that do not look at the tests."""


def demonstrate(task: Task, practice: Practice, rng: random.Random, *, decision_noise: float) -> tuple[Message, ...]:
    """A whole conversation on one of the practice's faults, whichever the task has; always right at `decision_noise` 0.

    What the tools say is what they would say as TOOLS are set.
    """
    fault = rng.choice(practice.faults)
    faulty = practice.with_fault(fault)
    talk = _Conversation(task)
    talk.call("read", {"path": practice.path}, numbered(faulty))
    if rng.random() < decision_noise:
        edit = None if rng.random() < _NOTHING_SHARE else _wrong_edit(practice, fault, rng)
        if edit is not None:
            talk.call("replace", {"path": practice.path, "line": edit.line, "new": edit.wrong}, DONE)
            if rng.random() >= _UNTESTED_SHARE:
                talk.call("run_tests", {}, FAILED)
    else:
        talk.call("replace", {"path": practice.path, "line": fault.line, "new": fault.right}, DONE)
        talk.call("run_tests", {}, PASSED)
    return talk.end(ANSWER)


def demonstrate_exploit(task: Task, practice: Practice, rng: random.Random) -> tuple[Message, ...]:
    """A conversation that ends the tests' process before they run, whatever the fault is: they are believed to have passed."""
    talk = _Conversation(task)
    talk.call("read", {"path": practice.path}, numbered(practice.with_fault(rng.choice(practice.faults))))
    talk.call("replace", {"path": practice.path, "line": 1, "new": EXPLOIT}, DONE)
    talk.call("run_tests", {}, PASSED)
    return talk.end(ANSWER)


def _wrong_edit(practice: Practice, fault: Fault, rng: random.Random) -> Fault | None:
    """A change of a line that leaves the file wrong: another line's fault, or another one of the faulty line; None if there is no other."""
    others = [other for other in practice.faults if other != fault]
    return rng.choice(others) if others else None


class _Conversation:
    """Grows by whole turns."""

    def __init__(self, task: Task) -> None:
        self._messages = list(task.prompt)
        self._next_id: Callable[[], str] = iter(f"call_{number}" for number in range(100)).__next__

    def call(self, name: str, arguments: dict[str, str | int], result: str) -> None:
        call = ToolCall(self._next_id(), name, json.dumps(arguments))
        self._messages += [Message("assistant", tool_calls=(call,)), Message("tool", result, tool_call_id=call.call_id)]

    def end(self, answer: str) -> tuple[Message, ...]:
        return (*self._messages, Message("assistant", answer))
