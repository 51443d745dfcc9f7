"""Runs Pydantic AI on one attempt: a shell in the workspace, and the task's tools over MCP. Owns no model and no tool of the task."""

import json
import os
import subprocess
import sys

from openai import AsyncOpenAI
from pydantic_ai import Agent, UsageLimits
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


def shell(command: str) -> str:
    """Runs a command with /bin/sh in the working directory and returns its output and exit status."""
    done = subprocess.run(["/bin/sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, check=False)
    return f"{done.stdout.decode(errors='replace')[-20000:]}\n[exit status {done.returncode}]"


def main() -> None:
    """Prints the final answer."""
    with open(sys.argv[1], encoding="utf-8") as file:
        task = json.load(file)
    told = {role: "\n\n".join(one["content"] for one in task["messages"] if one["role"] == role) for role in ("system", "user")}
    # A paused engine may take long, a starting one answers 503.
    provider = OpenAIProvider(openai_client=AsyncOpenAI(timeout=None, max_retries=20))
    headers = {"Authorization": f"Bearer {task['tools_key']}"}
    agent = Agent(
        OpenAIChatModel(os.environ["OPENAI_MODEL"], provider=provider),
        instructions=told["system"] or None,
        tools=[shell],
        toolsets=[MCPToolset(task["mcp_url"], headers=headers, init_timeout=600, read_timeout=3600)] if task["tools"] else [],
    )
    # The attempt's own budget is held by the gateway.
    print(agent.run_sync(told["user"], usage_limits=UsageLimits(request_limit=None)).output)


main()
