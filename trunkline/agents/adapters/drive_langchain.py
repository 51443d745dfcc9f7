"""Runs LangChain's agent on one attempt: a shell, the task's tools over MCP, a history that is summarised. Owns no tool of the task."""

import asyncio
import json
import os
import subprocess
import sys

from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_openai import ChatOpenAI

SUMMARISED_AT, KEPT = 0.5, 0.2  # of the context; the library counts tokens roughly
MAX_STEPS = 10_000  # the attempt's own budget is held by the gateway


def shell(command: str) -> str:
    """Runs a command with /bin/sh in the working directory and returns its output and exit status."""
    done = subprocess.run(["/bin/sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, check=False)
    return f"{done.stdout.decode(errors='replace')[-20000:]}\n[exit status {done.returncode}]"


async def work(task: dict, max_context: int) -> str:
    """The final answer."""
    told = {role: "\n\n".join(one["content"] for one in task["messages"] if one["role"] == role) for role in ("system", "user")}
    # A paused engine may take long, a starting one answers 503.
    model = ChatOpenAI(model=os.environ["OPENAI_MODEL"], timeout=None, max_retries=20)
    tools = [shell]
    if task["tools"]:
        server = {"transport": "streamable_http", "url": task["mcp_url"], "headers": {"Authorization": f"Bearer {task['tools_key']}"}}
        tools += await MultiServerMCPClient({"task": server}).get_tools()
    summary = SummarizationMiddleware(model, trigger=("tokens", int(SUMMARISED_AT * max_context)), keep=("tokens", int(KEPT * max_context)))
    agent = create_agent(model, tools, system_prompt=told["system"] or None, middleware=[summary])
    asked = {"messages": [{"role": "user", "content": told["user"]}]}
    result = await agent.ainvoke(asked, {"recursion_limit": MAX_STEPS})
    return result["messages"][-1].text


def main() -> None:
    """Prints the final answer."""
    max_context, task_path = sys.argv[1:]
    with open(task_path, encoding="utf-8") as file:
        print(asyncio.run(work(json.load(file), int(max_context))))


main()
