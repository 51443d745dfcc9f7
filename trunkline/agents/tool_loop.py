"""The white-box agent: a conversation with tools, over the same HTTP as any other agent. Owns no tool and no model."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from trunkline.agents.context_management import load_method
from trunkline.agents.conversation import CONTEXT_EXCEEDED, Conversations
from trunkline.agents.loop_settings import LoopSettings
from trunkline.agents.openai_shape import wire_message, wire_tool
from trunkline.agents.program import refuse_workspace
from trunkline.errors import AgentError, EngineUnavailable
from trunkline.protocols import Assignment

MAX_CONNECTIONS = 1024
MAX_RETRIES = 20
"""Of a 503; with the longest wait below, somewhat over two minutes."""
MAX_WAIT_S = 8.0


def shared_http() -> aiohttp.ClientSession:
    """A client for many loops at once; no read timeout, since an engine may be paused for long. Close it when done.

    aiohttp, for a pool of hundreds of busy connections costs it 0.1 ms a call; httpx took 1.9 ms (tools/http_clients.py).
    """
    connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None, sock_connect=30.0), trust_env=False)


@dataclass(frozen=True)
class _Answer:
    """What came back of one call."""

    status: int
    body: bytes
    retry_after: str


class ToolLoop:
    """Asks the model, runs the tools that it calls, appends the results, until it answers without a call.

    A spent budget or `max_turns` reached ends the attempt without an answer: the agent's own doing, judged like any other.

    >>> agent = ToolLoop(shared_http(), LoopSettings(max_turns=8))

    Args:
        http: a client shared with other loops (`shared_http()`), or None for one of its own in each run.
        settings: its limits, its context management and its sub-agents.
    """

    def __init__(self, http: aiohttp.ClientSession | None, settings: LoopSettings) -> None:
        self._http = http
        self._settings = settings
        self._method = load_method(settings.context)

    async def run(self, assignment: Assignment) -> str:
        """The final answer, '' if there is none. Raises AgentError, EngineUnavailable if the model stays away, ConfigError."""
        refuse_workspace(assignment)
        if self._http is not None:
            return await self._converse(self._http, assignment)
        async with shared_http() as http:
            return await self._converse(http, assignment)

    async def _converse(self, http: aiohttp.ClientSession, assignment: Assignment) -> str:
        request: dict[str, Any] = {"model": assignment.model, "messages": [wire_message(message) for message in assignment.prompt]}
        if assignment.tools.specs:
            request["tools"] = [wire_tool(spec) for spec in assignment.tools.specs]

        async def ask(body: dict[str, Any]) -> tuple[dict[str, Any], int] | None:
            answer = await _ask(http, assignment, msgspec.json.encode(body))
            has_run_out = answer.status == 429 or (answer.status == 400 and CONTEXT_EXCEEDED in answer.body)
            return None if has_run_out else _reply(answer)

        async def call_tool(call: dict[str, Any]) -> str:
            return await assignment.tools.call(call["function"]["name"], call["function"]["arguments"])

        settings = self._settings
        conversations = Conversations(
            ask,
            call_tool,
            _together,
            max_turns=settings.max_turns,
            method=self._method,
            depth=settings.depth,
            max_sub_agents=settings.max_sub_agents,
        )
        return await conversations.answer(request)


async def _together(work: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """The first that fails ends the others and is what is raised."""
    if len(work) == 1:
        return [await work[0]]
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(http: aiohttp.ClientSession, assignment: Assignment, body: bytes) -> _Answer:
    """One call; waits while the engine is unavailable, as long as the server says and longer each time."""
    headers = {"authorization": f"Bearer {assignment.api_key}", "content-type": "application/json"}
    url = f"{assignment.base_url}/chat/completions"
    for retry in range(MAX_RETRIES + 1):
        try:
            async with http.post(url, data=body, headers=headers) as response:
                answer = _Answer(response.status, await response.read(), response.headers.get("retry-after", "0"))
        except aiohttp.ClientError as error:
            # The URL may hold the session's secret, and some of these errors repeat it.
            cause = str(error).replace(url, "its URL")
            raise AgentError(f"no answer from the model's server: {type(error).__name__} {cause}") from error
        if answer.status != 503:
            return answer
        if retry < MAX_RETRIES:
            await asyncio.sleep(max(_retry_after_s(answer), min(MAX_WAIT_S, 0.1 * 2**retry)))
    raise EngineUnavailable(f"the model was unavailable {MAX_RETRIES + 1} times in a row: {answer.body[:200]!r}")


def _retry_after_s(answer: _Answer) -> float:
    """Seconds the server asks to wait; 0 if it does not say, at most MAX_WAIT_S."""
    written = answer.retry_after
    return min(MAX_WAIT_S, float(written)) if written.replace(".", "", 1).isdigit() else 0.0


def _reply(answer: _Answer) -> tuple[dict[str, Any], int]:
    """The assistant's message, and the tokens of prompt and completion."""
    if answer.status != 200:
        raise AgentError(f"the model's server answered {answer.status}: {answer.body[:300].decode(errors='replace')}")
    try:
        body = msgspec.json.decode(answer.body)
        message: dict[str, Any] = body["choices"][0]["message"]
        used = body.get("usage", {}).get("total_tokens", 0)
    except (msgspec.DecodeError, KeyError, IndexError, TypeError) as error:
        raise AgentError(f"not a chat completion: {answer.body[:300]!r}") from error
    return message, used
