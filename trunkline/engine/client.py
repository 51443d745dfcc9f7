"""The engine's verbs from the gateway's and conductor's side. Owns the calls over the Unix socket; imports no torch."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import msgspec

from trunkline.engine import wire
from trunkline.errors import EngineError, EngineUnavailable
from trunkline.types import Generation, GenerationRequest, WeightRef

_READY_POLL_S = 0.05
_KEEP_IDLE_S = 3000.0  # shorter than the server's, so that no request meets a connection that the server just closed
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

    async def wait_ready(self, timeout_s: float) -> None:
        """Returns once the engine has loaded its model. Raises EngineUnavailable after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._poll_health()
        except TimeoutError as error:
            raise EngineUnavailable(f"the engine at {self.socket_path} is not ready after {timeout_s} s; see its log") from error

    async def close(self) -> None:
        """Closes the connections; the process stays."""
        if "_http" in self.__dict__:
            await self._http.close()

    async def generate(self, request: GenerationRequest) -> Generation:
        """See Engine. Cancelling it aborts the request in the engine."""
        body = await self._call("POST", wire.GENERATE, wire.WireRequest.pack(request))
        try:
            return _DECODE_GENERATION(body).unpack()
        except ValueError as error:  # msgspec's are too
            raise EngineError(f"the engine at {self.socket_path} gave an answer that cannot be read: {error}") from error

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

    @functools.cached_property
    def _http(self) -> aiohttp.ClientSession:
        """Made at first use, inside the event loop that it belongs to."""
        connector = aiohttp.UnixConnector(str(self.socket_path), limit=0, keepalive_timeout=_KEEP_IDLE_S)
        return aiohttp.ClientSession("http://engine", connector=connector, timeout=aiohttp.ClientTimeout(total=None))

    async def _poll_health(self) -> None:
        while True:
            try:
                await self.health()
                return
            except EngineUnavailable:
                await asyncio.sleep(_READY_POLL_S)

    async def _call(self, method: str, path: str, body: msgspec.Struct | None = None) -> bytes:
        try:
            async with self._http.request(method, path, data=None if body is None else _ENCODE(body)) as response:
                status, content = response.status, await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise EngineUnavailable(f"the engine at {self.socket_path} does not answer {path}: {error}; see its log") from error
        if status == 200:
            return content
        try:
            message = msgspec.json.decode(content, type=wire.WireError).error.message
        except msgspec.MsgspecError:
            message = f"the engine answered {path} with {status}: {content[:200]!r}"
        raise (EngineUnavailable if status == 503 else EngineError)(message)
