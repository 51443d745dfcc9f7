"""The white-box agent's conversations: ask, run tools, choose the next context, until there is an answer. Owns no transport.

    task ─► ask ─► calls? ──no──► the answer
             ▲       │ yes
             │       ▼
             │     tools and sub-agents, each a conversation of its own in the same session
             │       │
             └─── f_CM(context + reply + results)       context_management.py

The same loop works in the conductor over aiohttp (tool_loop.py) and in a sandbox over http.client (loop_program.py), where each
import is paid once an attempt: built-in modules only.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own costs an import
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from typing import Any

    from trunkline.agents.context_management import ContextManagement, Messages

    Reply = tuple[dict[str, Any], int]
    """The assistant's message, and how many tokens the call used, prompt and completion."""
    Ask = Callable[[dict[str, Any]], Awaitable[Reply | None]]
    """Sends a body of Chat Completions; None if the budget is spent."""
    CallTool = Callable[[dict[str, Any]], Awaitable[str]]
    """One of the assistant's `tool_calls`; returns the result."""
    Together = Callable[[Sequence[Coroutine[Any, Any, Any]]], Awaitable[list[Any]]]
    """Runs them, at once where that is possible, and returns their results in order."""

CONTEXT_EXCEEDED = b"context_length_exceeded"
"""In the body of a 400: the context is full, and an agent that does not shorten it is done."""

DELEGATE = {
    "type": "function",
    "function": {
        "name": "delegate",
        "description": "Give a part of the work to a sub-agent, which knows nothing but what you write; returns its answer",
        "parameters": {"type": "object", "properties": {"task": {"type": "string"}}, "required": ["task"], "additionalProperties": False},
    },
}
"""The tool that starts a sub-agent."""
NONE_LEFT = "error: no sub-agents left"
BAD_TASK = "error: bad arguments"


class Conversations:
    """One attempt's conversations: the agent's, and those of its sub-agents.

    Args:
        ask: how the model is reached.
        call_tool: how the task's tools are.
        together: how several things are done at once.
        max_turns: calls of the model in one conversation at most, those of context management included.
        method: what of a conversation the model sees next.
        depth: 0: no sub-agents; 1: the agent has some; 2: these have too; ...
        max_sub_agents: over the whole attempt.
    """

    def __init__(
        self,
        ask: Ask,
        call_tool: CallTool,
        together: Together,
        *,
        max_turns: int,
        method: ContextManagement,
        depth: int = 0,
        max_sub_agents: int = 0,
    ) -> None:
        self._ask = ask
        self._call_tool = call_tool
        self._together = together
        self._max_turns = max_turns
        self._method = method
        self._depth = depth
        self._num_left = max_sub_agents

    async def answer(self, request: dict[str, Any]) -> str:
        """The final answer to a first body; '' if there is none after `max_turns` calls, or once the budget is spent."""
        return await self._converse(request, self._depth)

    async def _converse(self, request: dict[str, Any], depth: int) -> str:
        task: Messages = list(request["messages"])
        context = task
        body = {**request, "tools": [*request.get("tools", ()), DELEGATE]} if depth else dict(request)
        num_left = self._max_turns
        while num_left > 0:
            num_left -= 1
            asked = await self._ask({**body, "messages": context})
            if asked is None:
                return ""
            reply, used = asked
            calls = reply.get("tool_calls") or []
            if not calls:
                return reply.get("content") or ""
            context = [*context, reply, *await self._results(request, calls, depth)]
            instruction = self._method.instruction(used)
            said: str | None = None
            if instruction is not None and num_left > 0:
                num_left -= 1
                told = [*context, {"role": "user", "content": instruction}]
                asked = await self._ask({**body, "messages": told, "tool_choice": "none"})
                if asked is None:
                    return ""
                said = asked[0].get("content") or ""
            context = self._method.next_context(task, context, used, said)
        return ""

    async def _results(self, request: dict[str, Any], calls: Sequence[dict[str, Any]], depth: int) -> Messages:
        """The results of one turn's calls, in their order: the tools' one after another, the sub-agents' beside them."""
        is_delegated = [depth > 0 and call["function"]["name"] == "delegate" for call in calls]
        delegated = [call for call, is_one in zip(calls, is_delegated, strict=True) if is_one]
        plain = [call for call, is_one in zip(calls, is_delegated, strict=True) if not is_one]
        *answers, results = await self._together(
            [*(self._delegated(request, call["function"]["arguments"], depth) for call in delegated), self._called(plain)]
        )
        texts = {call["id"]: text for call, text in zip([*delegated, *plain], [*answers, *results], strict=True)}
        return [{"role": "tool", "tool_call_id": call["id"], "content": texts[call["id"]]} for call in calls]

    async def _called(self, calls: Sequence[dict[str, Any]]) -> list[str]:
        return [await self._call_tool(call) for call in calls]

    async def _delegated(self, request: dict[str, Any], arguments: str, depth: int) -> str:
        if self._num_left <= 0:
            return NONE_LEFT
        task = _task_in(arguments)
        if task is None:
            return BAD_TASK
        self._num_left -= 1
        return await self._converse({**request, "messages": [{"role": "user", "content": task}]}, depth - 1)


def _task_in(arguments: str) -> str | None:
    """The text in '{"task": "..."}'; None for anything else."""
    import json  # both transports have it loaded

    try:
        task = json.loads(arguments).get("task")
    except (ValueError, AttributeError, RecursionError):
        return None
    return task if isinstance(task, str) and task else None
