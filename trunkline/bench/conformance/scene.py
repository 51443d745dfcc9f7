"""One case's stage: a fresh session, the engine's draws since, and what a case may demand of them. Owns no case."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from trunkline.bench.conformance.engine import Draw, StubEngine
from trunkline.bench.conformance.record import Record, problems
from trunkline.bench.conformance.targets import Door, Target
from trunkline.bench.conformance.wires import TOOL, Conversation, Reply, Wire, sse_events

_RECORD_WAIT_S = 3.0
_NOT_THERE = (404, 405, 501)


class CaseFailed(Exception):
    """What was demanded and what came instead."""


class CaseUnsupported(Exception):
    """The target says that it does not do this."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    """Of HTTP."""
    text: str
    """The body."""

    def json(self) -> Any:
        """Raises CaseFailed if it is no JSON."""
        try:
            return json.loads(self.text)
        except ValueError:
            raise CaseFailed(f"the body of status {self.status} is no JSON: {self.text[:200]!r}") from None


class Scene:
    """What a case works with."""

    def __init__(self, target: Target, door: Door, engine: StubEngine, http: aiohttp.ClientSession) -> None:
        self.target = target
        self.door = door
        self.engine = engine
        self._http = http
        self._first_draw = len(engine.draws)

    @classmethod
    def beside(cls, scene: Scene, door: Door) -> Scene:
        """Another session of the same case, from now on."""
        return cls(scene.target, door, scene.engine, scene._http)

    @property
    def draws(self) -> list[Draw]:
        """What the engine handed out since the case began."""
        return self.engine.draws[self._first_draw :]

    def require(self, feature: str) -> None:
        """Raises CaseUnsupported if the target says it lacks the feature."""
        if feature in self.target.unsupported:
            raise CaseUnsupported(self.target.unsupported[feature])

    # --- talking to the target ------------------------------------------------------------------------------------

    async def post(
        self,
        wire: Wire,
        body: Any,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        route: str | None = None,
    ) -> Answer:
        """Sends a body (bytes as they are, anything else as JSON). Raises CaseFailed if no answer comes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {**wire.headers(self.door.api_key if api_key is None else api_key), "content-type": "application/json", **(headers or {})}
        try:
            async with self._http.post(self.door.base_url + (route or wire.route), data=data, headers=sent) as response:
                return Answer(response.status, (await response.read()).decode(errors="replace"))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise CaseFailed(f"no whole answer came: {error!r}") from error

    async def ask(self, wire: Wire, conversation: Conversation, *, is_streamed: bool = False, **knobs: Any) -> Reply:
        """One call that is to succeed. Raises CaseUnsupported where the target does not have it, CaseFailed for anything else."""
        self.require(wire.name)
        if is_streamed:
            self.require("stream")
            knobs["stream"] = True
        answer = await self.post(wire, wire.body(conversation, **knobs))
        if answer.status in _NOT_THERE:
            raise CaseUnsupported(f"{wire.route} answers {answer.status}")
        if answer.status != 200:
            raise CaseFailed(f"{wire.route} answers {answer.status}: {answer.text[:300]}")
        try:
            return wire.join(list(sse_events(answer.text))) if is_streamed else wire.read(answer.json())
        except (KeyError, TypeError, ValueError, IndexError, AssertionError) as error:
            raise CaseFailed(
                f"the {'stream' if is_streamed else 'answer'} is not of the API's shape: {error!r} in {answer.text[-300:]!r}"
            ) from error

    async def call_tool(self, wire: Wire, conversation: Conversation, result: str, *, city: str = "Paris", **knobs: Any) -> Conversation:
        """Asks (the conversation's last item holds a mark already); answers its one call with `result`."""
        reply = await self.ask(wire, conversation, **knobs)
        if len(reply.calls) != 1:
            raise CaseFailed(f"the sampled tool call reached the agent as {len(reply.calls)} calls and the text {reply.text!r}")
        return conversation.plus(*reply.echo, *wire.results([(reply.calls[0].call_id, result)]))

    # --- demands --------------------------------------------------------------------------------------------------

    async def record(self) -> Record:
        """The target's record as it is now."""
        return await self.target.record(self.door)

    async def settle(self) -> Record:
        """Every draw is trained exactly once, as it was sampled, or counted as dropped. Records may lag by _RECORD_WAIT_S."""
        deadline = asyncio.get_running_loop().time() + _RECORD_WAIT_S
        while True:
            record = await self.record()
            found = problems(self.draws, record)
            if not found:
                return record
            if asyncio.get_running_loop().time() > deadline:
                raise CaseFailed("; ".join(found[:3]))
            await asyncio.sleep(0.1)

    def demand(self, is_so: bool, otherwise: str) -> None:
        """Raises CaseFailed."""
        if not is_so:
            raise CaseFailed(otherwise)

    def demand_extension(self, earlier: Draw, later: Draw) -> None:
        """The later prompt begins with the earlier prompt and its sampled tokens."""
        before = (*earlier.prompt_ids, *earlier.token_ids)
        if later.prompt_ids[: len(before)] == before:
            return
        pairs = zip(before, later.prompt_ids, strict=False)
        place = next((place for place, (left, right) in enumerate(pairs) if left != right), len(later.prompt_ids))
        where = (
            f"token {place} of the earlier prompt"
            if place < len(earlier.prompt_ids)
            else f"sampled token {place - len(earlier.prompt_ids)}"
        )
        text = self.engine.model.text
        raise CaseFailed(
            f"the next prompt is no token extension: it differs at {where}; there was {text(before[place : place + 8])!r}, "
            f"there is {text(later.prompt_ids[place : place + 8])!r}"
        )

    def demand_extensions(self) -> None:
        """Each draw extends the one before."""
        for earlier, later in zip(self.draws, self.draws[1:], strict=False):
            self.demand_extension(earlier, later)


def call_text(city: str = "Paris", **more: Any) -> str:
    """A well-formed call as the model writes it."""
    return f"<tool_call>\n{json.dumps({'name': 'get', 'arguments': {'city': city, **more}})}\n</tool_call>"


def opening(wire: Wire, text: str, *, system: str | None = "You answer questions.") -> Conversation:
    """A conversation with the tool, begun by a user."""
    return Conversation((wire.user(text),), system, (TOOL,))
