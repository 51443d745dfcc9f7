"""What of a conversation the model sees next: context management, by short name or import path. Owns no loop; built-in modules only.

The loop (conversation.py) asks after each turn: the context of the last call, its reply and the tools' results go in, the context
of the next call comes out. What a method leaves out is forgotten for good. A method works on messages alone: how full the context
is it learns from the `usage` of the last answer, as any client does.

keep_all         everything (the default)
sliding_window   the task, and the last `turns` turns, each an assistant's turn with its tools' results
drop_all         everything until a call used more than `fraction` of max_context, then the task alone; with `keep_last` also the last turn
summary          everything until then; then the model is given `instruction`, and goes on from the task and what it answers
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own costs an import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    Messages = list[dict[str, Any]]

    class ContextManagement(Protocol):
        """One way to choose the next context; one object for all conversations, so it keeps nothing of any.

        >>> class TaskAlone:
        ...     def instruction(self, used): return None
        ...     def next_context(self, task, context, used, said): return task
        """

        def instruction(self, used: int) -> str | None:
            """What the model itself is told behind its context before the next one is made; None: nothing, as mostly.

            Args:
                used: tokens of the last call, prompt and completion; the results of its tools are not among them.
            """
            ...

        def next_context(self, task: Messages, context: Messages, used: int, said: str | None) -> Messages:
            """The messages of the next call; must not change what it is given.

            Args:
                task: the messages that the conversation began with.
                context: those of the last call, its reply, the results of its tools.
                used: as above.
                said: the model's answer to the instruction, None if there was none.
            """
            ...


class KeepAll:
    """Everything."""

    def instruction(self, used: int) -> str | None:
        """Never."""
        return None

    def next_context(self, task: Messages, context: Messages, used: int, said: str | None) -> Messages:
        """All of it."""
        return context


class SlidingWindow:
    """The task, and the last `turns` turns."""

    def __init__(self, turns: int = 4) -> None:
        self._num_turns = turns

    def instruction(self, used: int) -> str | None:
        """Never."""
        return None

    def next_context(self, task: Messages, context: Messages, used: int, said: str | None) -> Messages:
        """Whole turns only, so that no result is without its call."""
        return task + last_turns(context[len(task) :], self._num_turns)


class DropAll:
    """Everything, until a call used more than `fraction` of the context; then the task, with or without the last turn.

    MiniMax-M2's search evaluations do so at 0.3, without the last turn (arXiv 2605.26494, Table 4).
    """

    def __init__(self, max_context: int, fraction: float = 0.3, keep_last: bool = False) -> None:
        self._most_used = fraction * max_context
        self._num_kept = int(keep_last)

    def instruction(self, used: int) -> str | None:
        """Never."""
        return None

    def next_context(self, task: Messages, context: Messages, used: int, said: str | None) -> Messages:
        """All, or next to nothing."""
        return task + last_turns(context[len(task) :], self._num_kept) if used > self._most_used else context


class Summary:
    """Everything, until a call used more than `fraction` of the context; then the task and the model's own summary."""

    def __init__(self, max_context: int, fraction: float = 0.6, instruction: str = "Sum up what matters for the task so far.") -> None:
        self._most_used = fraction * max_context
        self._instruction = instruction

    def instruction(self, used: int) -> str | None:
        """When it is time."""
        return self._instruction if used > self._most_used else None

    def next_context(self, task: Messages, context: Messages, used: int, said: str | None) -> Messages:
        """The summary is a user's message, for the model is to take it as given."""
        return context if said is None else [*task, {"role": "user", "content": said}]


METHODS = {"keep_all": KeepAll, "sliding_window": SlidingWindow, "drop_all": DropAll, "summary": Summary}
"""By short name. Any other method is named MODULE:CLASS."""


def last_turns(turns: Messages, num_turns: int) -> Messages:
    """The last turns of what followed a task, each from an assistant's message up to the next one's; all of it if it has no more."""
    starts = [place for place, message in enumerate(turns) if message["role"] == "assistant"]
    if num_turns > len(starts):
        return turns
    return turns[starts[-num_turns] :] if num_turns else []


def load_method(settings: Mapping[str, Any]) -> ContextManagement:
    """The method that {"method": NAME, KNOB: VALUE, ...} describes; a recipe's section has checked them (context_config.py)."""
    knobs = dict(settings)
    name = knobs.pop("method")
    if ":" not in name:
        return METHODS[name](**knobs)
    from importlib import import_module

    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)(**knobs)
