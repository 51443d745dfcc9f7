"""The host's end of the socket to the server inside a sandbox (inside.py). Owns frames and waiting; trusts nothing it reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import marshal
import socket
from collections.abc import Mapping
from typing import Any

from trunkline.errors import SandboxError

MAX_HEAD_BYTES = 16 * 2**20
MAX_BODY_BYTES = 256 * 2**20
_MARSHAL_VERSION = 2  # understood by every Python 3


class Refused(Exception):
    """The server could not do it: `errno` and the system's words."""

    def __init__(self, errno: int, words: str) -> None:
        super().__init__(words)
        self.errno = errno


class ServerLink:
    """Requests and their answers, many at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], bytes]]] = {}
        self._next_id = 0
        self._reading = asyncio.create_task(self._read())
        self._end = ""

    @classmethod
    async def over(cls, ours: socket.socket) -> ServerLink:
        """Over one end of a socket pair, which it owns from now on."""
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return cls(reader, writer)

    async def request(self, op: str, body: bytes = b"", **head: Any) -> tuple[dict[str, Any], bytes]:
        """The answer. Raises Refused, or SandboxError if the server is gone or does not keep to the protocol."""
        return await self.ask(op, body, **head)[1]

    def ask(self, op: str, body: bytes = b"", **head: Any) -> tuple[int, asyncio.Future[tuple[dict[str, Any], bytes]]]:
        """Sends a request; its number, which names a command that it starts, and its answer to be."""
        self._next_id += 1
        answer: asyncio.Future[tuple[dict[str, Any], bytes]] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # who asked may have gone
        if self._reading.done():
            answer.set_exception(SandboxError(self._end))
            return self._next_id, answer
        self._waiting[self._next_id] = answer
        words = marshal.dumps({"id": self._next_id, "op": op, **head}, _MARSHAL_VERSION)
        self._writer.write(len(words).to_bytes(4, "big") + len(body).to_bytes(4, "big") + words + body)
        return self._next_id, answer

    async def close(self) -> None:
        """Hangs up: the server ends, and with it every process of the sandbox."""
        self._writer.close()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._give_up("the sandbox was destroyed")

    async def _read(self) -> None:
        cause = "the sandbox has ended"
        try:
            while True:
                await self._read_frame()
        except (asyncio.IncompleteReadError, OSError):
            pass
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            cause = f"the server inside the sandbox sent what is no answer: {error}"
        self._give_up(cause)
        with contextlib.suppress(OSError):
            self._writer.close()

    async def _read_frame(self) -> None:
        lengths = await self._reader.readexactly(8)
        head_size, body_size = int.from_bytes(lengths[:4], "big"), int.from_bytes(lengths[4:], "big")
        if head_size > MAX_HEAD_BYTES or body_size > MAX_BODY_BYTES:
            raise ValueError(f"a frame of {head_size} + {body_size} bytes")
        head = json.loads(await self._reader.readexactly(head_size))
        body = await self._reader.readexactly(body_size)
        number = _field(head, "id", int)
        refusal = Refused(_field(head, "errno", int), _field(head, "error", str)[:500]) if "error" in head else None
        answer = self._waiting.pop(number, None)
        if answer is None or answer.done():
            return  # of a request whose waiter has gone
        if refusal is not None:
            answer.set_exception(refusal)
        else:
            answer.set_result((head, body))

    def _give_up(self, cause: str) -> None:
        self._end = self._end or cause
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(SandboxError(self._end))


def _field(head: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    """A field of an answer, checked. Raises KeyError, TypeError."""
    value = head[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{name} is {value!r:.80}")
    return value
