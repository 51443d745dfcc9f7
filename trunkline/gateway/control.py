"""The operator's HTTP over a Unix socket that no agent can reach. Owns opening and closing sessions, pause and resume."""

from __future__ import annotations

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from trunkline.errors import MalformedRequest
from trunkline.gateway.app import EXCEPTION_HANDLERS
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.sampling import SamplingHold
from trunkline.gateway.sessions import SessionBudget


class SessionOpening(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /sessions."""

    episode_id: str
    """The episode that the session belongs to."""
    seed: int
    """The episode's seed."""
    hold: SamplingHold = SamplingHold()
    """What is sampled, whatever clients ask."""
    budget: SessionBudget = SessionBudget()
    """What may be spent."""


def build_control_app(gateway: Gateway) -> Starlette:
    """POST /sessions, DELETE /sessions/ID, GET /sessions (never secrets), POST /pause, POST /resume."""

    async def open_session(request: Request) -> Response:
        try:
            opening = msgspec.json.decode(await request.body(), type=SessionOpening)
        except msgspec.DecodeError as error:
            raise MalformedRequest(f"not a session to open: {error}") from error
        opened = gateway.open_session(episode_id=opening.episode_id, seed=opening.seed, hold=opening.hold, budget=opening.budget)
        return _json(opened, status=201)

    async def list_sessions(request: Request) -> Response:
        return _json(gateway.sessions())

    async def close_session(request: Request) -> Response:
        await gateway.close_session(request.path_params["session_id"])
        return Response(status_code=204)

    async def pause(request: Request) -> Response:
        await gateway.pause()
        return Response(status_code=204)

    async def resume(request: Request) -> Response:
        await gateway.resume()
        return Response(status_code=204)

    routes = [
        Route("/sessions", open_session, methods=["POST"]),
        Route("/sessions", list_sessions, methods=["GET"]),
        Route("/sessions/{session_id}", close_session, methods=["DELETE"]),
        Route("/pause", pause, methods=["POST"]),
        Route("/resume", resume, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)


def _json(value: object, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")
