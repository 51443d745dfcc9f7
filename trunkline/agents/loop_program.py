"""The white-box agent as a program, for sandboxes: told like any other (program.py), prints its answer. Owns no retry but of a 503.

    python -S -m trunkline.agents.loop_program SETTINGS        (JSON of loop_settings.py)

It waits on one thing at a time, sub-agents included, so its coroutines never really wait, and asyncio, which costs more than the
rest, is not imported.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
from typing import Any
from urllib.parse import quote, urlsplit

from trunkline.agents.context_management import load_method
from trunkline.agents.conversation import CONTEXT_EXCEEDED, Conversations

MAX_RETRIES = 20
MAX_WAIT_S = 8.0


def main() -> None:
    """Works on the task and prints the answer."""
    with open(os.environ["TRUNKLINE_TASK"], encoding="utf-8") as file:
        task = json.load(file)
    request = {"model": os.environ["OPENAI_MODEL"], "messages": task["messages"]} | ({"tools": task["tools"]} if task["tools"] else {})
    model, tools = Wire(os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]), Wire(task["tools_url"], task["tools_key"])

    async def ask(body: dict[str, Any]) -> tuple[dict[str, Any], int] | None:
        status, answer = model.post("/chat/completions", json.dumps(body, ensure_ascii=False))
        if status == 429 or (status == 400 and CONTEXT_EXCEEDED in answer):
            return None
        content = _checked(status, answer)
        return content["choices"][0]["message"], content.get("usage", {}).get("total_tokens", 0)

    async def call_tool(call: dict[str, Any]) -> str:
        called = call["function"]
        return str(_checked(*tools.post("/" + quote(called["name"], safe=""), called["arguments"]))["result"])

    settings = json.loads(sys.argv[1])
    method = load_method(settings.pop("context"))
    try:
        Conversations(ask, call_tool, _together, method=method, **settings).answer(request).send(None)
    except StopIteration as done:
        sys.stdout.write(done.value)


async def _together(work: Any) -> list[Any]:
    return [await one for one in work]


class Wire:
    """One connection, kept, with its key."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.netloc)
        self._path = parts.path
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    def post(self, path: str, body: str) -> tuple[int, bytes]:
        """Status and body of the answer; waits while the model is unavailable."""
        for retry in range(MAX_RETRIES + 1):
            self._connection.request("POST", self._path + path, body.encode(), self._headers)
            response = self._connection.getresponse()
            answer = response.read()
            if response.status != 503:
                break
            time.sleep(min(MAX_WAIT_S, 0.1 * 2**retry))
        return response.status, answer


def _checked(status: int, answer: bytes) -> dict[str, Any]:
    if status != 200:
        sys.exit(f"status {status}: {answer[:300].decode(errors='replace')}")
    content: dict[str, Any] = json.loads(answer)
    return content


if __name__ == "__main__":
    main()
