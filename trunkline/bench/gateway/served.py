"""The gateway's process: the real gateway and journal over the real engine client. Owns their wiring and its own costs.

    python -m trunkline.bench.gateway.served --tokenizer FOLDER --engine SOCKET --control SOCKET --journal FILE

The control socket is the operator's (gateway/control.py), and GET /port, GET /costs, POST /episodes/ID/sessions/ID/end: closes
the session, records the episode as the end of an attempt does, and forgets it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from pathlib import Path

import msgspec
import psutil
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from trunkline.asgi import serve_port, serve_uds
from trunkline.bench.gateway.child import until_parent_is_gone
from trunkline.engine.client import EngineClient
from trunkline.gateway.app import build_app
from trunkline.gateway.control import build_control_app
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.markup import CHATML, MarkupRenderer
from trunkline.models.tokenizer import Tokenizer
from trunkline.pool.journal import Journal
from trunkline.types import Episode, Reward


class Costs(msgspec.Struct):
    """What the process has cost so far."""

    cpu_s: float
    """CPU-seconds of all its threads."""
    resident_bytes: int
    """Now."""


async def _end_episode(gateway: Gateway, journal: Journal, episode_id: str, session_id: str) -> None:
    await gateway.close_session(session_id)
    record = gateway.episode_record(episode_id)
    episode = Episode(
        episode_id=episode_id,
        group_id="bench",
        task_id="bench",
        attempt=0,
        status="finished",
        completions=record.completions,
        messages=record.messages,
        rewards=(Reward("outcome", 1.0, "not judged"),),
    )
    await journal.record_episode(episode)
    gateway.discard(episode_id)


def _control(gateway: Gateway, journal: Journal, port: int) -> Starlette:
    process = psutil.Process()

    async def end(request: Request) -> Response:
        await _end_episode(gateway, journal, request.path_params["episode_id"], request.path_params["session_id"])
        return Response(status_code=204)

    async def costs(request: Request) -> Response:
        if "collect" in request.query_params:
            gc.collect()
        return _json(Costs(time.process_time(), process.memory_info().rss))

    async def where(request: Request) -> Response:
        return _json(port)

    app = build_control_app(gateway)
    app.router.routes.append(Route("/episodes/{episode_id}/sessions/{session_id}/end", end, methods=["POST"]))
    app.router.routes.append(Route("/costs", costs, methods=["GET"]))
    app.router.routes.append(Route("/port", where, methods=["GET"]))
    return app


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


async def _serve(tokenizer: Path, engine_socket: Path, control_socket: Path, journal_path: Path) -> None:
    journal = Journal.open(journal_path)
    engine = EngineClient(engine_socket)
    gateway = Gateway(engine, MarkupRenderer(Tokenizer.load(tokenizer), CHATML), journal, model_name="bench")
    agents = await serve_port(build_app(gateway))
    assert agents.port is not None
    control = await serve_uds(_control(gateway, journal, agents.port), control_socket)
    await until_parent_is_gone()
    await control.stop()
    await agents.stop()
    await engine.close()
    await journal.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m trunkline.bench.gateway.served")
    for name in ("tokenizer", "engine", "control", "journal"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(arguments.tokenizer, arguments.engine, arguments.control, arguments.journal))


if __name__ == "__main__":
    main()
