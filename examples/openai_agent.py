"""A tool-using agent on OpenAI's SDK, as Trunkline runs any program: `--stream` reads server-sent events, `--async` uses asyncio."""

import argparse
import asyncio
import json
import os
import urllib.request

import openai

# The SDK reads OPENAI_BASE_URL and OPENAI_API_KEY by itself. A paused engine may take long, a starting one answers 503.
OPTIONS = {"timeout": None, "max_retries": 20}


def main() -> None:
    """Prints the answer; nothing if the attempt's budget of calls or tokens is spent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--async", action="store_true", dest="is_async")
    arguments = parser.parse_args()
    with open(os.environ["TRUNKLINE_TASK"], encoding="utf-8") as file:
        task = json.load(file)
    try:
        print(asyncio.run(work_async(task, arguments.stream)) if arguments.is_async else work(task, arguments.stream))
    except openai.RateLimitError:
        pass


def work(task: dict, stream: bool) -> str:
    """Asks the model and runs the tools that it calls, until it answers without a call."""
    client = openai.OpenAI(**OPTIONS)
    while True:
        answer = client.chat.completions.create(**request(task), stream=stream)
        reply = joined(answer) if stream else answer.choices[0].message.to_dict()
        if not reply.get("tool_calls"):
            return reply["content"]
        results = [call_tool(task, call) for call in reply["tool_calls"]]
        task["messages"] += [reply, *results]


async def work_async(task: dict, stream: bool) -> str:
    """The same on asyncio."""
    client = openai.AsyncOpenAI(**OPTIONS)
    while True:
        answer = await client.chat.completions.create(**request(task), stream=stream)
        reply = joined([chunk async for chunk in answer]) if stream else answer.choices[0].message.to_dict()
        if not reply.get("tool_calls"):
            return reply["content"]
        results = [await asyncio.to_thread(call_tool, task, call) for call in reply["tool_calls"]]
        task["messages"] += [reply, *results]


def request(task: dict) -> dict:
    """What each call of the model says."""
    tools = {"tools": task["tools"]} if task["tools"] else {}
    return {"model": os.environ["OPENAI_MODEL"], "messages": task["messages"], **tools}


def joined(chunks) -> dict:
    """The message that a stream says piece by piece."""
    content, calls = "", []
    for delta in (choice.delta for chunk in chunks for choice in chunk.choices):
        content += delta.content or ""
        for piece in delta.tool_calls or ():
            if piece.index == len(calls):
                calls.append({"id": piece.id, "type": "function", "function": {"name": piece.function.name, "arguments": ""}})
            calls[piece.index]["function"]["arguments"] += piece.function.arguments
    return {"role": "assistant", "content": content} | ({"tool_calls": calls} if calls else {})


def call_tool(task: dict, call: dict) -> dict:
    """Runs a tool of the attempt over plain HTTP; its result is the next message."""
    url = f"{task['tools_url']}/{call['function']['name']}"
    headers = {"authorization": f"Bearer {task['tools_key']}", "content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, call["function"]["arguments"].encode(), headers)) as response:
        return {"role": "tool", "tool_call_id": call["id"], "content": json.load(response)["result"]}


if __name__ == "__main__":
    main()
