"""Serves an ASGI app inside a running event loop, on a TCP port or a Unix socket. Owns no route and no signal."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trunkline.errors import ConfigError, InfraError

if TYPE_CHECKING:
    import uvicorn

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
    listener: socket.socket
    """What it accepts on."""
    uds: Path | None = None
    """The Unix socket; removed at the end."""

    async def stop(self) -> None:
        """Closes the listener, lets requests in flight end for a few seconds, then returns."""
        try:
            await self.server.shutdown(sockets=[self.listener])
        finally:
            if self.uds is not None:
                self.uds.unlink(missing_ok=True)


async def serve_port(app: Any, *, host: str = "127.0.0.1", port: int = 0) -> Serving:
    """Serves on host:port (0: any free port) and returns once requests are accepted.

    Raises ConfigError if the port is in use or may not be bound, InfraError if none is free.
    """
    bound = _bind_port(host, port)
    return Serving(bound.getsockname()[1], await _start(app, bound), bound)


async def serve_uds(app: Any, path: Path, *, mode: int = 0o600) -> Serving:
    """Serves on a Unix socket that only this user can open, or whom `mode` lets write.

    Raises ConfigError if the path is taken or too long.
    """
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        os.chmod(path, mode)  # before listen(): nobody can connect earlier
    except OSError as error:
        bound.close()
        raise ConfigError(f"cannot serve on the socket {path}: {error}; remove it or choose a shorter, free path") from error
    return Serving(None, await _start(app, bound), bound, path)


async def _start(app: Any, bound: socket.socket) -> uvicorn.Server:
    import uvicorn  # here: only who serves needs it

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
    config.load()
    server = uvicorn.Server(config)
    # What Server.serve() does before it takes over the signals, which are the program's, and wakes up ten times a second.
    server.lifespan = config.lifespan_class(config)
    try:
        await server.startup(sockets=[bound])
    except OSError as error:
        bound.close()
        raise InfraError(f"the HTTP server cannot accept connections: {error}") from error
    return server


def _bind_port(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by name: only then does asyncio set TCP_NODELAY, without which an answer's second packet waits 40 ms for an ACK.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(_BACKLOG)  # a second listener would only fail here
    except OSError as error:
        bound.close()
        if port == 0 and error.errno == errno.EADDRINUSE:
            raise InfraError(f"no port of {host} is free; end programs that hold many") from error
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error.strerror})"
        raise ConfigError(f"port {port} of {host} {reason}; choose another, or 0 for any free one") from error
    return bound
