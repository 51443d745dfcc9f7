"""The HTTP that agents see: OpenAI Chat Completions over Starlette. Owns status codes; control.py has what agents must not reach.

Any model name is accepted, so that unmodified agents work; answers carry the gateway's own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

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
from trunkline.gateway.chat_wire import chat_answer, decode_chat, encode_chat, encode_error, encode_models
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.recorder import Committed
from trunkline.gateway.sse import KEEP_ALIVE_S, chat_events, stream_events

MAX_BODY_BYTES = 64 * 2**20
RETRY_AFTER_S = 1


class _Refusal(NamedTuple):
    """What a failure is on the wire."""

    status: int
    kind: str
    code: str


# The first match counts.
_REFUSALS: tuple[tuple[type[TrunklineError], _Refusal], ...] = (
    (UnknownSession, _Refusal(401, "authentication_error", "unknown_session")),
    (MalformedRequest, _Refusal(400, "invalid_request_error", "malformed_request")),
    (ConfigError, _Refusal(400, "invalid_request_error", "malformed_request")),
    (BudgetExceeded, _Refusal(429, "rate_limit_error", "budget_exceeded")),
    (EngineUnavailable, _Refusal(503, "server_error", "engine_unavailable")),
    (JournalError, _Refusal(503, "server_error", "journal_unavailable")),
    (TrunklineError, _Refusal(500, "server_error", "gateway_failure")),
)


def build_app(gateway: Gateway, *, keep_alive_s: float = KEEP_ALIVE_S) -> Starlette:
    """The agents' app: POST /v1/chat/completions (API key) and /s/SECRET/v1/chat/completions, GET /v1/models, /healthz.

    A streamed answer begins when it is recorded, or else after `keep_alive_s`, with comments as often as that.
    """

    async def chat(request: Request) -> Response:
        session = gateway.session(_secret(request))
        wanted = decode_chat(await _body(request))
        created = int(time.time())
        completing = gateway.complete(session, wanted.ask)
        if not wanted.is_streamed:
            return _json(encode_chat(chat_answer(await completing, model=gateway.model_name, created=created)))

        def events(committed: Committed) -> Iterator[bytes]:
            return chat_events(chat_answer(committed, model=gateway.model_name, created=created), with_usage=wanted.with_usage)

        return await stream_events(completing, events, _failure_body, keep_alive_s=keep_alive_s)

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
    assert isinstance(error, TrunklineError)
    status = _refusal(error).status
    headers = {"retry-after": str(RETRY_AFTER_S)} if status == 503 else {"x-should-retry": "false"}
    return _json(_failure_body(error), status=status, headers=headers)


def _failure_body(error: TrunklineError) -> bytes:
    refusal = _refusal(error)
    return encode_error(str(error), kind=refusal.kind, code=refusal.code)


def _refusal(error: TrunklineError) -> _Refusal:
    return next(refusal for failure, refusal in _REFUSALS if isinstance(error, failure))


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
