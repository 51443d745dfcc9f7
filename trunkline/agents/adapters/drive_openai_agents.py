"""Runs OpenAI's Agents SDK on one attempt: a shell in the workspace, and the task's tools over MCP. Owns no tool of the task."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys

from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, function_tool
from agents.mcp import MCPServerStreamableHttp
from openai import AsyncOpenAI

MAX_TURNS = 1000  # the attempt's own budget is held by the gateway


@function_tool
def shell(command: str) -> str:
    """Runs a command with /bin/sh in the working directory and returns its output and exit status.

    Args:
        command: What to run.
    """
    done = subprocess.run(["/bin/sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, check=False)
    return f"{done.stdout.decode(errors='replace')[-20000:]}\n[exit status {done.returncode}]"


async def work(task: dict) -> str:
    """The final answer."""
    told = {role: "\n\n".join(one["content"] for one in task["messages"] if one["role"] == role) for role in ("system", "user")}
    # A paused engine may take long, a starting one answers 503.
    model = OpenAIResponsesModel(os.environ["OPENAI_MODEL"], AsyncOpenAI(timeout=None, max_retries=20))
    async with contextlib.AsyncExitStack() as stack:
        servers = []
        if task["tools"]:
            parameters = {"url": task["mcp_url"], "headers": {"Authorization": f"Bearer {task['tools_key']}"}, "timeout": 3600}
            servers.append(await stack.enter_async_context(MCPServerStreamableHttp(parameters, client_session_timeout_seconds=3600)))
        agent = Agent(
            "agent",
            instructions=told["system"] or "Work on the task until it is done, then answer.",
            model=model,
            model_settings=ModelSettings(store=False),
            tools=[shell],
            mcp_servers=servers,
        )
        result = await Runner.run(agent, told["user"], max_turns=MAX_TURNS)
    return str(result.final_output)


def main() -> None:
    """Prints the final answer."""
    with open(sys.argv[1], encoding="utf-8") as file:
        print(asyncio.run(work(json.load(file))))


main()
