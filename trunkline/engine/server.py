"""The engine's process: one local engine behind vLLM's wire shape on a Unix socket. Owns the loop and the routes.

    python -m trunkline.engine.server --model FOLDER --socket PATH --version 1.0

    POST /inference/v1/generate         POST /pause?mode=keep|abort    POST /update_weights {path, version}
    POST /inference/v1/abort_requests   POST /resume                   GET  /weight_info
    GET  /health                        GET  /is_paused

One thread. Steps run on the event loop, which gets one turn after each: `engine.step(); await asyncio.sleep(0)`. A step is
milliseconds, and requests that come in meanwhile wait in the socket for the next one anyway. A thread beside torch would
make each of them wait for the interpreter lock at every operation of the step: half the throughput, in a prototype.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import msgspec
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from trunkline.engine import wire
from trunkline.engine.local import LocalEngine
from trunkline.engine.route_memory import ReturnRoutes
from trunkline.engine.scheduler import Finished
from trunkline.errors import ConfigError, EngineError, EngineUnavailable, InfraError, TrunklineError
from trunkline.types import Generation, PolicyVersion, WeightRef

_PARENT_POLL_S = 0.5
_IDLE_CONNECTION_S = 3600  # the client's pool decides which connections live
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
_ENCODE = msgspec.json.Encoder().encode
_DECODE_REQUEST = msgspec.json.Decoder(wire.WireRequest).decode


class EngineRoutes:
    """HTTP verbs of one engine, and the loop that steps it."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        self.failure: BaseException | None = None
        """What a step raised; the engine's state is lost then, and the process ends."""
        self._answers: dict[str, asyncio.Future[Generation]] = {}
        self._has_work = asyncio.Event()

    def app(self) -> Starlette:
        """The application; errors are {"error": {"type", "message"}}."""
        posts = {
            wire.GENERATE: self.generate,
            wire.ABORT: self.abort_requests,
            "/pause": self.pause,
            "/resume": self.resume,
            "/update_weights": self.update_weights,
        }
        gets = {"/health": self.health, "/is_paused": self.is_paused, "/weight_info": self.weight_info}
        routes = [Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()]
        routes += [Route(path, endpoint, methods=["GET"]) for path, endpoint in gets.items()]
        refused = (msgspec.MsgspecError, ValueError, EngineError, InfraError)
        return Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=dict.fromkeys(refused, _refused))

    async def generate(self, request: Request) -> Response:
        """Samples one completion; a client that hangs up aborts it."""
        asked = _DECODE_REQUEST(await request.body()).unpack()
        self.engine.add(asked)
        answer = self._answers[asked.request_id] = asyncio.get_running_loop().create_future()
        self._has_work.set()
        hang_up = asyncio.ensure_future(request.receive())  # after the body, the next message is the disconnect
        hang_up.add_done_callback(lambda done: None if done.cancelled() else self.abort([asked.request_id]))
        try:
            return _json(wire.WireGeneration.pack(asked.request_id, await answer))
        finally:
            hang_up.cancel()

    async def abort_requests(self, request: Request) -> Response:
        """Ends requests; their generate calls answer with what was sampled. Unknown ids have ended already."""
        self.abort(msgspec.json.decode(await request.body(), type=wire.WireAbort).request_ids)
        return _json({})

    async def pause(self, request: Request) -> Response:
        """Stops sampling before it answers. mode=keep (default) leaves the requests as they are, mode=abort ends them."""
        mode = request.query_params.get("mode", "keep")
        if mode not in ("keep", "abort"):
            raise ValueError(f"mode must be keep or abort, got {mode!r}")
        self.engine.is_paused = True
        if mode == "abort":
            self.abort_all()
        return _json({"status": "paused"})

    async def resume(self, request: Request) -> Response:
        """Samples on."""
        self.engine.is_paused = False
        self._has_work.set()
        return _json({"status": "resumed"})

    async def is_paused(self, request: Request) -> Response:
        """Whether sampling is stopped."""
        return _json({"is_paused": self.engine.is_paused})

    async def update_weights(self, request: Request) -> Response:
        """Loads weights between two steps; requests in flight go on under them."""
        update = msgspec.json.decode(await request.body(), type=wire.WireUpdate)
        self.engine.update_weights(WeightRef(Path(update.path), PolicyVersion.parse(update.version)))
        return await self.weight_info(request)

    async def weight_info(self, request: Request) -> Response:
        """The policy version that samples now."""
        return _json({"weight_version": str(self.engine.scheduler.version)})

    async def health(self, request: Request) -> Response:
        """Ready, and what has been done."""
        scheduler = self.engine.scheduler
        return _json(
            wire.WireHealth(
                status="paused" if self.engine.is_paused else "running",
                weight_version=str(scheduler.version),
                max_context=scheduler.max_context,
                tokens_computed=scheduler.stats.num_computed,
                tokens_reused=scheduler.stats.num_reused,
                tokens_sampled=scheduler.stats.num_sampled,
                num_steps=scheduler.stats.num_steps,
                running=scheduler.rows.num_rows,
                waiting=len(scheduler.waiting),
            )
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        stepping = asyncio.create_task(self._step_for_ever())
        stepping.add_done_callback(self._stepping_ended)
        try:
            yield
        finally:
            stepping.cancel()

    def abort(self, request_ids: Sequence[str]) -> None:
        """Ends those of the requests that are still here."""
        self._resolve(self.engine.abort(request_ids))

    def abort_all(self) -> None:
        """Ends every request."""
        self.abort(list(self._answers))

    async def _step_for_ever(self) -> None:
        while True:
            if not self.engine.has_work:
                self._has_work.clear()
                await self._has_work.wait()
            self._resolve(self.engine.step())
            await asyncio.sleep(0)

    def _stepping_ended(self, stepping: asyncio.Task[None]) -> None:
        if not stepping.cancelled():
            self.failure = stepping.exception()
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(EngineUnavailable(f"the engine ends: {self.failure}"))

    def _resolve(self, finished: Sequence[Finished]) -> None:
        for one in finished:
            answer = self._answers.pop(one.request_id)
            if not answer.done():
                answer.set_result(one.generation)


def _json(content: Any, status: int = 200) -> Response:
    return Response(_ENCODE(content), status_code=status, media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    """What the caller can change (400), or what a retry may (503)."""
    status = 503 if isinstance(error, EngineUnavailable) else 400
    return _json(wire.WireError(wire.WireProblem(type(error).__name__, str(error))), status)


class _Server(uvicorn.Server):
    """Ends with status 0 on SIGTERM and when its parent is gone; Ctrl-C is the conductor's to handle."""

    def __init__(self, routes: EngineRoutes, *, parent: int) -> None:
        config = uvicorn.Config(
            routes.app(),
            loop="uvloop",
            http="httptools",
            lifespan="on",
            log_level="warning",
            access_log=False,
            timeout_keep_alive=_IDLE_CONNECTION_S,
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)
        self.routes = routes
        self.parent = parent

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGINT:
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        is_over = self.routes.failure is not None or os.getppid() != self.parent
        return is_over or await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.routes.abort_all()
        await super().shutdown(sockets)


def serve(engine: LocalEngine, socket_path: Path, *, parent: int) -> None:
    """Serves until SIGTERM, or until process `parent` ends. The socket is the owner's alone. Raises what a step raised."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    socket_path.unlink(missing_ok=True)
    previous = os.umask(0o177)
    try:
        listener.bind(str(socket_path))
    except OSError as error:
        raise ConfigError(f"cannot listen on {socket_path}: {error} (a socket's path holds at most 107 bytes)") from error
    finally:
        os.umask(previous)
    routes = EngineRoutes(engine)
    try:
        _Server(routes, parent=parent).run(sockets=[listener])
    finally:
        socket_path.unlink(missing_ok=True)
    if routes.failure is not None:
        raise routes.failure


def main() -> None:
    """The command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="python -m trunkline.engine.server", description="One engine on a Unix socket.")
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder of the policy")
    parser.add_argument("--socket", type=Path, required=True, help="where to listen")
    parser.add_argument("--version", type=PolicyVersion.parse, required=True, help="policy version of that folder, such as 1.0")
    parser.add_argument("--dtype", choices=_DTYPES, default="float32", help="of weights, activations and cache")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; more than one pays only with spare cores")
    parser.add_argument("--max-cached-tokens", type=int, help="slots of the cache; default: what 512 MB hold")
    parser.add_argument("--max-batch", type=int, default=256, help="completions sampled together at most")
    parser.add_argument(
        "--return-routes",
        choices=get_args(ReturnRoutes),
        default="sampled",
        help="of a sparse model: none, those of sampled tokens, or all",
    )
    parser.add_argument("--parent", type=int, default=os.getppid(), help="end with this process, the parent")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        engine = LocalEngine.load(
            arguments.model,
            version=arguments.version,
            dtype=_DTYPES[arguments.dtype],
            max_batch=arguments.max_batch,
            num_slots=arguments.max_cached_tokens,
            return_routes=arguments.return_routes,
        )
        serve(engine, arguments.socket, parent=arguments.parent)
    except TrunklineError as error:
        sys.exit(f"error: {error}")  # one line in the log, which is what the conductor shows


if __name__ == "__main__":
    main()
