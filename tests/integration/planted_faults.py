"""`python -m tests.integration.planted_faults FAULT train ...`: the command line with one real part put in wrongly. Owns the faults.

Nothing else is changed: the run writes what any run with this fault would write.
"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from trunkline.agents.tool_loop import ToolLoop
from trunkline.errors import AgentError
from trunkline.protocols import Assignment, Tools
from trunkline.run import agent_side, cli, conductor


class Rewriting(ToolLoop):
    """An agent that changes its own past in every turn: one more blank behind the question."""

    async def run(self, assignment: Assignment) -> str:
        tools = [
            {"type": "function", "function": {"name": spec.name, "description": spec.description, "parameters": dict(spec.parameters)}}
            for spec in assignment.tools.specs
        ]
        said: list[dict[str, Any]] = []
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {assignment.api_key}"}) as http:
            for turn in range(4):
                question = {"role": "user", "content": assignment.prompt[0].content + " " * turn}
                body = {"model": assignment.model, "messages": [question, *said], "tools": tools}
                async with http.post(f"{assignment.base_url}/chat/completions", json=body) as response:
                    content = await response.read()
                    if response.status != 200:
                        raise AgentError(f"{response.status}: {content[:200]!r}")
                reply = msgspec.json.decode(content)["choices"][0]["message"]
                calls = reply.get("tool_calls") or []
                if not calls:
                    return reply.get("content") or ""
                said.append(reply)
                for call in calls:
                    result = await assignment.tools.call(call["function"]["name"], call["function"]["arguments"])
                    said.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        return ""


class Swallowing(ToolLoop):
    """An agent that calls a wrong address and answers with nothing instead of raising."""

    async def run(self, assignment: Assignment) -> str:
        try:
            async with aiohttp.ClientSession() as http, http.post(f"{assignment.base_url}/wrong", json={}, raise_for_status=True):
                return ""
        except aiohttp.ClientError:
            return ""


class _Raising:
    """Tools whose backend is gone."""

    def __init__(self, tools: Tools) -> None:
        self.specs = tools.specs

    async def call(self, name: str, arguments: str) -> str:
        raise ConnectionError(f"the backend of {name} is gone")


class WithRaisingTools(ToolLoop):
    """The agent as it is, its tools broken."""

    async def run(self, assignment: Assignment) -> str:
        return await super().run(dataclasses.replace(assignment, tools=_Raising(assignment.tools)))


def plant(fault: str) -> None:
    """Puts the part in. `engine-model=FOLDER` starts the engine from another policy than the trainer's."""
    agents = {"rewriting-agent": Rewriting, "swallowing-agent": Swallowing, "raising-tools": WithRaisingTools}
    name, _, folder = fault.partition("=")
    if name == "engine-model":
        rollout_side = conductor.rollout_side

        def other_model(*arguments: Any, **named: Any) -> AbstractAsyncContextManager[Any]:
            return rollout_side(*arguments, **{**named, "model": Path(folder)})

        conductor.rollout_side = other_model  # type: ignore[assignment]
    else:
        agent_side.ToolLoop = agents[name]  # type: ignore[misc]


if __name__ == "__main__":
    plant(sys.argv.pop(1))
    cli.main()
