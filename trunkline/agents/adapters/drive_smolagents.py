"""Runs one of smolagents' agents on one attempt: a shell in the workspace, and the task's tools over MCP. Owns no tool of the task."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import smolagents

MAX_STEPS = 1000  # the attempt's own budget is held by the gateway


@smolagents.tool
def shell(command: str) -> str:
    """Runs a command with /bin/sh in the working directory and returns its output and exit status.

    Args:
        command: What to run.
    """
    done = subprocess.run(["/bin/sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, check=False)
    return f"{done.stdout.decode(errors='replace')[-20000:]}\n[exit status {done.returncode}]"


def main() -> None:
    """Writes the final answer to ~/answer.txt: stdout is the agent's own."""
    kind, task_path = sys.argv[1:]
    with open(task_path, encoding="utf-8") as file:
        task = json.load(file)
    told = {role: "\n\n".join(one["content"] for one in task["messages"] if one["role"] == role) for role in ("system", "user")}
    # A paused engine may take long, a starting one answers 503.
    model = smolagents.OpenAIModel(
        os.environ["OPENAI_MODEL"],
        api_base=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
        client_kwargs={"timeout": None, "max_retries": 20},
        retry=False,  # its own retries would ask for minutes after the budget is spent
    )
    with contextlib.ExitStack() as stack:
        tools = [shell]
        if task["tools"]:
            server = {"url": task["mcp_url"], "transport": "streamable-http", "headers": {"Authorization": f"Bearer {task['tools_key']}"}}
            tools += stack.enter_context(smolagents.MCPClient(server, structured_output=False))
        agent = getattr(smolagents, kind)(tools=tools, model=model, instructions=told["system"] or None, max_steps=MAX_STEPS)
        answer = agent.run(told["user"])
    (Path.home() / "answer.txt").write_text(str(answer), encoding="utf-8")


main()
