"""The HTTP that agents see: three wire APIs over Starlette. Owns routes and status codes; control.py has what agents must not reach.

    POST /v1/chat/completions     OpenAI Chat Completions (chat_wire.py)
    POST /v1/responses            OpenAI Responses (responses_wire.py)
    POST /v1/messages             Anthropic Messages (messages_wire.py), with /v1/messages/count_tokens
    GET  /v1/models  /healthz

Each also without /v1, and below /s/SECRET. A session is found by that path or by the key: `Authorization: Bearer`, `x-api-key`,
`api-key`. Any model name is accepted, so that unmodified agents work; answers carry the gateway's own, or in Messages the client's,
for Anthropic's own agent throws away thinking that another model wrote.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from trunkline.errors import MalformedRequest, TrunklineError
from trunkline.gateway.call import Call
from trunkline.gateway.chat_answer import encode, encode_models, model_object
from trunkline.gateway.chat_wire import ChatWire
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.messages_answer import encode_token_count
from trunkline.gateway.messages_wire import MessagesWire
from trunkline.gateway.responses_wire import ResponsesWire
from trunkline.gateway.sessions import Session
from trunkline.gateway.sse import KEEP_ALIVE_S, stream_events
from trunkline.gateway.wire import TOO_LARGE, Answer, Ask, Committed, Failed, Past, WireAPI, failed

MAX_BODY_BYTES = 64 * 2**20
NOT_HONOURED_HEADER = "x-trunkline-not-honoured"

_CHAT, _RESPONSES, _MESSAGES = ChatWire(), ResponsesWire(), MessagesWire()
_CLIENT_GONE = 499
_MAX_HEADER_CHARS = 2000

Endpoint = Callable[[Request], Awaitable[Response]]


def build_app(gateway: Gateway, *, keep_alive_s: float = KEEP_ALIVE_S) -> Starlette:
    """The agents' app.

    A streamed answer begins when it is recorded, or else after `keep_alive_s`, with comments as often as that.
    """

    async def models(request: Request) -> Response:
        return _json(encode_models(gateway.model_name))

    async def model(request: Request) -> Response:
        return _json(encode(model_object(gateway.model_name)))

    async def healthz(request: Request) -> Response:
        return _json(b'{"status":"ok"}')

    posts = {
        "/chat/completions": _completing(gateway, _CHAT, keep_alive_s),
        "/responses": _completing(gateway, _RESPONSES, keep_alive_s),
        "/messages": _completing(gateway, _MESSAGES, keep_alive_s),
        "/messages/count_tokens": _counting(gateway),
    }
    routes = [Route("/healthz", healthz, methods=["GET"])]
    for prefix in ("/v1", "", "/s/{secret}/v1", "/s/{secret}"):
        routes += [Route(prefix + path, endpoint, methods=["POST"]) for path, endpoint in posts.items()]
        routes.append(Route(f"{prefix}/models", models, methods=["GET"]))
        routes.append(Route(f"{prefix}/models/{{model:path}}", model, methods=["GET"]))
    return Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)


def _completing(gateway: Gateway, api: WireAPI, keep_alive_s: float) -> Endpoint:
    async def complete(request: Request) -> Response:
        session = gateway.session(_secret(request))
        wanted = api.decode(await _body(request), _past(gateway, session))
        created = int(time.time())
        call = gateway.start(session, wanted.ask)

        def answer(samples: tuple[Committed, ...]) -> Answer:
            return Answer(samples, gateway.model_name, created, gateway.text, wanted.ask.not_honoured)

        def events(samples: tuple[Committed, ...]) -> Iterator[bytes]:
            return wanted.events(answer(samples))

        def failure_event(error: TrunklineError) -> bytes:
            return api.failure_event(failed(error))

        if await _has_left(request, call, timeout_s=keep_alive_s if wanted.is_streamed else None):
            return Response(status_code=_CLIENT_GONE)
        if wanted.is_streamed:
            response = stream_events(call, events, failure_event, keep_alive_s=keep_alive_s)
        else:
            response = _json(wanted.body(answer(call.result())))
        _say_not_honoured(response, wanted.ask)
        return response

    return complete


def _counting(gateway: Gateway) -> Endpoint:
    async def count_tokens(request: Request) -> Response:
        session = gateway.session(_secret(request))
        wanted = _MESSAGES.decode(await _body(request), _past(gateway, session))
        return _json(encode_token_count(gateway.count_tokens(session, wanted.ask)))

    return count_tokens


def _past(gateway: Gateway, session: Session) -> Past:
    return lambda completion_id: gateway.past(session, completion_id)


async def _has_left(request: Request, call: Call, *, timeout_s: float | None) -> bool:
    """True if the client goes away before the call is done, or the time is up; its answer then waits for the next request
    that asks the same."""
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await call.wait(timeout_s, unless=leaving)
        has_left = leaving.done() and not call.is_done
    finally:
        leaving.cancel()
    if has_left:
        call.leave()
    return has_left


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _say_not_honoured(response: Response, ask: Ask) -> None:
    """Header values are Latin-1 (RFC 9110, section 5.5)."""
    if ask.not_honoured:
        said = "; ".join(ask.not_honoured)[:_MAX_HEADER_CHARS]
        response.headers[NOT_HONOURED_HEADER] = said.encode("ascii", "backslashreplace").decode().replace("\n", " ").replace("\r", " ")


async def _refused(request: Request, error: Exception) -> Response:
    """A named failure in the API's own shape. A spent budget tells the official clients not to retry."""
    assert isinstance(error, TrunklineError)
    return _failure(request, failed(error))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    # The path may hold a secret.
    message = f"{error.detail}: this gateway answers POST /v1/chat/completions, /v1/responses and /v1/messages, and GET /v1/models"
    return _failure(request, Failed(error.status_code, "invalid_request_error", "no_such_route", message))


def _failure(request: Request, failure: Failed) -> Response:
    response = _json(_api_of(request).refusal(failure), status=failure.status)
    response.headers.update(failure.headers)
    return response


def _api_of(request: Request) -> WireAPI:
    """By its route; a client of Anthropic's that went astray says so by a header of its own."""
    if "/messages" in request.url.path or "anthropic-version" in request.headers:
        return _MESSAGES
    return _RESPONSES if "/responses" in request.url.path else _CHAT


async def _gone(request: Request, error: Exception) -> Response:
    """The client left before its request was whole; nobody reads this."""
    return Response(status_code=_CLIENT_GONE)


EXCEPTION_HANDLERS = {TrunklineError: _refused, HTTPException: _no_route, ClientDisconnect: _gone}
"""For every app of the gateway: failures in the API's own shape."""


def _secret(request: Request) -> str:
    secret: str | None = request.path_params.get("secret")
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    return secret or bearer or request.headers.get("x-api-key", "") or request.headers.get("api-key", "")


async def _body(request: Request) -> bytes:
    """Raises MalformedRequest beyond MAX_BODY_BYTES, before it is all in memory."""
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise MalformedRequest(f"the body is larger than {MAX_BODY_BYTES} bytes; send less", code=TOO_LARGE)
    return b"".join(chunks)


def _json(content: bytes, *, status: int = 200) -> Response:
    return Response(content, status_code=status, media_type="application/json")
