"""The engine's verbs from the gateway's and conductor's side. Owns the calls over the Unix socket; imports no torch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from trunkline.engine import wire
from trunkline.engine.connections import ConnectionPool
from trunkline.errors import EngineError, EngineUnavailable
from trunkline.types import Generation, GenerationRequest, WeightRef

_READY_POLL_S = 0.05
_ENCODE = msgspec.json.Encoder().encode
_DECODE_GENERATION = msgspec.json.Decoder(wire.WireGeneration).decode


class EngineClient:
    """An Engine (protocols.py) in another process. Every method raises EngineUnavailable if the process is not there or goes
    away, EngineError with its message if it refuses. There is no timeout: a paused engine answers when it is resumed.

    >>> client = EngineClient(socket_path)
    >>> await client.wait_ready(60.0)
    >>> generation = await client.generate(GenerationRequest("r1", (5, 7, 9), SamplingParams(max_tokens=20, seed=3)))
    """

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self._connections = ConnectionPool(socket_path)

    async def wait_ready(self, timeout_s: float) -> None:
        """Returns once the engine has loaded its model. Raises EngineUnavailable after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._poll_health()
        except TimeoutError as error:
            raise EngineUnavailable(f"the engine at {self.socket_path} is not ready after {timeout_s} s; see its log") from error

    async def close(self) -> None:
        """Closes the connections; the process stays."""
        self._connections.close()

    async def generate(self, request: GenerationRequest) -> Generation:
        """See Engine. Cancelling it aborts the request in the engine."""
        return _DECODE_GENERATION(await self._call("POST", wire.GENERATE, wire.WireRequest.pack(request))).unpack()

    async def abort(self, request_ids: Sequence[str]) -> None:
        """See Engine."""
        await self._call("POST", wire.ABORT, wire.WireAbort(list(request_ids)))

    async def pause(self) -> None:
        """See Engine."""
        await self._call("POST", "/pause?mode=keep")

    async def resume(self) -> None:
        """See Engine."""
        await self._call("POST", "/resume")

    async def update_weights(self, ref: WeightRef) -> None:
        """See Engine. No pause is needed: weights change between two steps."""
        await self._call("POST", "/update_weights", wire.WireUpdate(str(ref.path), str(ref.version)))

    async def health(self) -> wire.WireHealth:
        """State and counters."""
        return msgspec.json.decode(await self._call("GET", "/health"), type=wire.WireHealth)

    async def _poll_health(self) -> None:
        while True:
            try:
                await self.health()
                return
            except EngineUnavailable:
                await asyncio.sleep(_READY_POLL_S)

    async def _call(self, method: str, path: str, body: msgspec.Struct | None = None) -> bytes:
        try:
            response = await self._connections.request(method, path, b"" if body is None else _ENCODE(body))
        except OSError as error:
            raise EngineUnavailable(f"the engine at {self.socket_path} does not answer {path}: {error}; see its log") from error
        if response.status == 200:
            return response.body
        try:
            message = msgspec.json.decode(response.body, type=wire.WireError).error.message
        except msgspec.MsgspecError:
            message = f"the engine answered {path} with {response.status}: {response.body[:200]!r}"
        raise (EngineUnavailable if response.status == 503 else EngineError)(message)
