"""Serves an ASGI app inside a running event loop, on a TCP port or a Unix socket. Owns no route and no signal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from trunkline.errors import ConfigError, InfraError

_BACKLOG = 4096
_GRACE_S = 5
_IDLE_CONNECTION_S = 120  # clients keep theirs for seconds (httpx 5, aiohttp 15): none meets a connection that was just closed


@dataclass(frozen=True)
class Serving:
    """An app that is being served."""

    port: int | None
    """The bound TCP port; None on a Unix socket."""
    server: uvicorn.Server
    """uvicorn's server."""
    task: asyncio.Task[None]
    """Ends with the server."""
    uds: Path | None = None
    """The Unix socket; removed at the end."""

    async def stop(self) -> None:
        """Closes the listener, lets requests in flight end for a few seconds, then returns."""
        self.server.should_exit = True
        await self.task
        if self.uds is not None:
            self.uds.unlink(missing_ok=True)


async def serve_port(app: Any, *, host: str = "127.0.0.1", port: int = 0) -> Serving:
    """Serves on host:port (0: any free port) and returns once requests are accepted.

    Raises ConfigError if the port is in use or may not be bound.
    """
    bound = _bind_port(host, port)
    server, task = await _start(app, bound)
    return Serving(bound.getsockname()[1], server, task)


async def serve_uds(app: Any, path: Path) -> Serving:
    """Serves on a Unix socket that only this user can open. Raises ConfigError if the path is taken or too long."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        os.chmod(path, 0o600)  # before listen(): nobody can connect earlier
    except OSError as error:
        bound.close()
        raise ConfigError(f"cannot serve on the socket {path}: {error}; remove it or choose a shorter, free path") from error
    server, task = await _start(app, bound)
    return Serving(None, server, task, path)


class _EmbeddedServer(uvicorn.Server):
    """uvicorn without signal handlers (they are the program's) that says when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.accepting.set()


async def _start(app: Any, bound: socket.socket) -> tuple[uvicorn.Server, asyncio.Task[None]]:
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_IDLE_CONNECTION_S,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _EmbeddedServer(config)
    task = asyncio.create_task(server.serve(sockets=[bound]))
    accepting = asyncio.create_task(server.accepting.wait())
    await asyncio.wait({task, accepting}, return_when=asyncio.FIRST_COMPLETED)
    if not server.accepting.is_set():
        accepting.cancel()
        raise InfraError("the HTTP server ended before it accepted a request; see the log above")
    return server, task


def _bind_port(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(_BACKLOG)  # a second listener would only fail here
    except OSError as error:
        bound.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error.strerror})"
        raise ConfigError(f"port {port} of {host} {reason}; choose another, or 0 for any free one") from error
    return bound
