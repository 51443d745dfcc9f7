"""The proxy door: HTTP to the hosts that a recipe lists, and to no other. Owns the list's meaning; looks into no encrypted traffic.

CONNECT host:port               (https)  ─► a tunnel, if host:port is listed
GET http://host[:port]/path     (http)   ─► the same request at the host, one a connection
anything else                   403, and the record says what was asked

Names are resolved on this host, so nothing inside needs DNS. Sources: RFC 9110 section 9.3.6 (CONNECT), RFC 9112 section 3.2 (forms of
the request target).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import h11

from trunkline.errors import ConfigError

CONNECT_TIMEOUT_S = 20.0
HEAD_TIMEOUT_S = 60.0
CHUNK = 64 * 2**10
_HOP_BY_HOP = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization"})


@dataclass(frozen=True)
class AllowedHosts:
    """Which hosts and ports may be reached. `AllowedHosts.parse(["pypi.org", "mirror.example:8080"])`."""

    addresses: frozenset[tuple[str, int]]
    """Host in lower case, port."""

    @classmethod
    def parse(cls, entries: Sequence[str]) -> Self:
        """'host' allows its ports 80 and 443, 'host:port' that one. Raises ConfigError on anything else."""
        addresses: set[tuple[str, int]] = set()
        for entry in entries:
            host, colon, port = entry.lower().rpartition(":") if not entry.endswith("]") else (entry.lower(), "", "")
            if not colon:
                host, ports = entry.lower(), [80, 443]
            elif port.isdigit() and 0 < int(port) < 65536:
                ports = [int(port)]
            else:
                ports = []
            if not ports or not host or any(mark in host for mark in "/*@ "):
                raise ConfigError(f"sandbox.allowed_hosts takes 'host' or 'host:port', without wildcards, got {entry!r}")
            addresses |= {(host.strip("[]"), port) for port in ports}
        return cls(frozenset(addresses))

    def allows(self, host: str, port: int) -> bool:
        """Whether it is listed, as it is written: no subdomains, no other spelling."""
        return (host.lower(), port) in self.addresses


@asynccontextmanager
async def serve_proxy(allowed: AllowedHosts, socket: Path, on_request: Callable[[str], None]) -> AsyncIterator[None]:
    """Serves on a Unix socket that any user may open, for the length of the block; `on_request` is told each decision."""
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                await _Exchange(allowed, reader, writer, on_request).serve()
        finally:
            running.discard(task)
            writer.close()

    server = await asyncio.start_unix_server(serve, path=socket)
    os.chmod(socket, 0o666)  # who runs inside a sandbox is another user; the folder above is ours alone
    try:
        yield
    finally:
        server.close()
        for task in tuple(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.to_thread(socket.unlink, missing_ok=True)


class _Refusal(Exception):
    """Why a request is answered by us: status and words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class _Exchange:
    """One connection of a client."""

    def __init__(
        self, allowed: AllowedHosts, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, on_request: Callable[[str], None]
    ) -> None:
        self._allowed = allowed
        self._reader = reader
        self._writer = writer
        self._on_request = on_request

    async def serve(self) -> None:
        """Reads one request's head, then relays or refuses."""
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                request, rest = await self._head()
            await self._forward(request, rest)
        except _Refusal as refusal:
            body = f"trunkline proxy: {refusal}\n".encode()
            head = (
                f"HTTP/1.1 {refusal.status} Refused\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self._writer.write(head.encode() + body)
            await self._writer.drain()

    async def _head(self) -> tuple[h11.Request, bytes]:
        """The request and what came after its head."""
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=CHUNK)
        read = b""
        while True:
            data = await self._reader.read(CHUNK)
            if not data:
                raise asyncio.IncompleteReadError(read, None)
            read += data
            try:
                parser.receive_data(data)
                event = parser.next_event()
            except h11.RemoteProtocolError as error:
                raise _Refusal(400, f"not a request: {error}") from None
            if isinstance(event, h11.Request):
                return event, read[read.index(b"\r\n\r\n") + 4 :] if b"\r\n\r\n" in read else b""

    async def _forward(self, request: h11.Request, rest: bytes) -> None:
        target = request.target.decode("latin-1")
        is_tunnel = request.method == b"CONNECT"
        parts = urlsplit(f"//{target}" if is_tunnel else target)
        try:
            host, port = parts.hostname or "", parts.port or (0 if is_tunnel else 80)
        except ValueError:
            host, port = "", 0
        what = f"{request.method.decode('latin-1')} {host}:{port}"
        if not host or (not is_tunnel and parts.scheme != "http"):
            raise _Refusal(400, "a proxy takes CONNECT host:port, or an absolute http:// URL")
        if not self._allowed.allows(host, port):
            self._on_request(f"{what} refused: not in sandbox.allowed_hosts")
            raise _Refusal(403, f"{host}:{port} is not in sandbox.allowed_hosts")
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            self._on_request(f"{what} failed: {error}")
            raise _Refusal(502, f"{host}:{port} cannot be reached: {error}") from None
        self._on_request(what)
        try:
            if is_tunnel:
                self._writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                writer.write(rest)
            else:
                writer.write(_origin_head(request, parts.path or "/", parts.query) + rest)
            await asyncio.gather(_relay(self._reader, writer), _relay(reader, self._writer))
        finally:
            writer.close()


def _origin_head(request: h11.Request, path: str, query: str) -> bytes:
    """The same request as its host wants it."""
    line = b"%s %s HTTP/1.1\r\n" % (request.method, (path + (f"?{query}" if query else "")).encode("latin-1"))
    headers = [(name, value) for name, value in request.headers if name not in _HOP_BY_HOP]
    return line + b"".join(b"%s: %s\r\n" % pair for pair in [*headers, (b"connection", b"close")]) + b"\r\n"


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, to its end."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
