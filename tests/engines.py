"""What scripted engines of tests share: how a reply becomes a generation, verbs that do nothing, a log that keeps nothing. Owns no test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trunkline.gateway.base import Renderer
from trunkline.types import Generation, GenerationRequest, Message, PolicyVersion, ToolSpec, VersionSpan


def spoken(renderer: Renderer, reply: Message, request: GenerationRequest, tools: Sequence[ToolSpec] = ()) -> Generation:
    """The reply as an engine would sample it, cut at the request's limit."""
    ids = renderer.reply((Message("user", "x"), reply), tools)[: request.sampling.max_tokens]
    finish = "stop" if ids[-1] in request.sampling.stop_token_ids else "length"
    return Generation(ids, (-0.5,) * len(ids), finish, (VersionSpan(0, len(ids), PolicyVersion(1, 0)),))


class QuietEngine:
    """An Engine's verbs but `generate`."""

    async def abort(self, request_ids: Sequence[str]) -> None:
        pass

    async def pause(self) -> None:
        pass

    async def resume(self) -> None:
        pass


class NoLog:
    """Keeps nothing."""

    async def record_completion(self, episode_id: str, completion: Any, messages: Any) -> None:
        pass
