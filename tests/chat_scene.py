"""An OpenAI-compatible endpoint on this host that answers by a script and keeps what it was asked."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Endpoint:
    """The script and what came of it."""

    answers: list[str | int]
    """Texts, or statuses of refusals, in order; the last one stays."""
    base_url: str = ""
    """Of the endpoint."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of all requests."""
    keys: list[str] = field(default_factory=list)
    """Their Authorization headers."""

    async def answer(self, request: web.Request) -> web.Response:
        """One turn of the script."""
        self.asked.append(await request.json())
        self.keys.append(request.headers.get("Authorization", ""))
        turn = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(turn, int):
            return web.json_response({"error": {"message": "not now"}}, status=turn)
        usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": turn}}
        return web.json_response({"id": "c1", "object": "chat.completion", "model": "small", "choices": [choice], "usage": usage})


@contextlib.asynccontextmanager
async def endpoint(answers: Sequence[str | int]) -> AsyncIterator[Endpoint]:
    """Serves on a free port until the block ends."""
    scene = Endpoint(list(answers))
    app = web.Application()
    app.router.add_post("/v1/chat/completions", scene.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    scene.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield scene
    finally:
        await runner.cleanup()
