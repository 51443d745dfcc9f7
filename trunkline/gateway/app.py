"""The HTTP that agents see: OpenAI Chat Completions over Starlette. Owns status codes; control.py has what agents must not reach.

Any model name is accepted, so that unmodified agents work; answers carry the gateway's own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from trunkline.errors import (
    BudgetExceeded,
    ConfigError,
    EngineUnavailable,
    JournalError,
    MalformedRequest,
    TrunklineError,
    UnknownSession,
)
from trunkline.gateway.chat_wire import decode_chat, encode_chat, encode_error, encode_models
from trunkline.gateway.gateway import Gateway

MAX_BODY_BYTES = 64 * 2**20
RETRY_AFTER_S = 1

# What a class of failure is on the wire: status, OpenAI's error type, code. The first match counts.
_STATUS: tuple[tuple[type[TrunklineError], int, str, str], ...] = (
    (UnknownSession, 401, "authentication_error", "unknown_session"),
    (MalformedRequest, 400, "invalid_request_error", "malformed_request"),
    (ConfigError, 400, "invalid_request_error", "malformed_request"),
    (BudgetExceeded, 429, "rate_limit_error", "budget_exceeded"),
    (EngineUnavailable, 503, "server_error", "engine_unavailable"),
    (JournalError, 503, "server_error", "journal_unavailable"),
    (TrunklineError, 500, "server_error", "gateway_failure"),
)


def build_app(gateway: Gateway) -> Starlette:
    """The agents' app: POST /v1/chat/completions (API key) and /s/SECRET/v1/chat/completions, GET /v1/models, /healthz."""

    async def chat(request: Request) -> Response:
        session = gateway.session(_secret(request))
        ask = decode_chat(await _body(request))
        committed = await gateway.complete(session, ask)
        return _json(encode_chat(committed, model=gateway.model_name, created=int(time.time())))

    async def models(request: Request) -> Response:
        return _json(encode_models(gateway.model_name))

    async def healthz(request: Request) -> Response:
        return _json(b'{"status":"ok"}')

    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/s/{secret}/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/s/{secret}/v1/models", models, methods=["GET"]),
        Route("/healthz", healthz, methods=["GET"]),
    ]
    return Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)


async def _refused(request: Request, error: Exception) -> Response:
    """A named failure in OpenAI's shape. A spent budget tells OpenAI's own client not to retry."""
    status, kind, code = next((status, kind, code) for cls, status, kind, code in _STATUS if isinstance(error, cls))
    headers = {"retry-after": str(RETRY_AFTER_S)} if status == 503 else {"x-should-retry": "false"}
    return _json(encode_error(str(error), kind=kind, code=code), status=status, headers=headers)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: this gateway answers POST /v1/chat/completions and GET /v1/models"  # the path may hold a secret
    return _json(encode_error(message, kind="invalid_request_error", code="no_such_route"), status=error.status_code)


async def _gone(request: Request, error: Exception) -> Response:
    """The client left before its request was whole; nobody reads this."""
    return Response(status_code=499)


EXCEPTION_HANDLERS = {TrunklineError: _refused, HTTPException: _no_route, ClientDisconnect: _gone}
"""For every app of the gateway: failures in OpenAI's shape."""


def _secret(request: Request) -> str:
    secret: str | None = request.path_params.get("secret")
    return secret or request.headers.get("authorization", "").removeprefix("Bearer ").strip()


async def _body(request: Request) -> bytes:
    """Raises MalformedRequest beyond MAX_BODY_BYTES, before it is all in memory."""
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise MalformedRequest(f"the body is larger than {MAX_BODY_BYTES} bytes; send less")
    return b"".join(chunks)


def _json(content: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(content, status_code=status, headers=headers, media_type="application/json")
