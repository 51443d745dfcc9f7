"""The stub engine over HTTP: vLLM's routes for token ids and for chat. Owns bodies and status codes; engine.py samples.

POST /inference/v1/generate     token ids in, token ids and log-probabilities out
POST /v1/chat/completions       messages in; logprobs, return_token_ids, n, stop, tools, stream as vLLM has them
GET  /v1/models, /health        GET /version
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from trunkline.bench.conformance.engine import DEFAULT_MAX_TOKENS, GATED_TOKENS, Draw, EngineFailure, SampleAsk, StubEngine
from trunkline.bench.conformance.model import MODEL_NAME

T = TypeVar("T")

_MAX_MODEL_LEN = 262_144


def build_engine_app(engine: StubEngine) -> Starlette:
    """The engine's routes. A request whose client leaves is abandoned, as vLLM aborts it."""

    async def generate(request: Request) -> Response:
        try:
            body = await request.json()
            prompt_ids = [int(token) for token in body["token_ids"]]
            drawn = await _unless_gone(request, engine.draw(prompt_ids, _ask(body.get("sampling_params") or {})))
        except EngineFailure as error:
            return _error(500, str(error))
        except (ValueError, TypeError, KeyError) as error:
            return _error(400, f"not a generate request: {error!r}")
        if drawn is None:
            return Response(status_code=499)
        return JSONResponse(_generated(drawn, body.get("request_id", f"gen-{drawn.number}")))

    async def chat(request: Request) -> Response:
        try:
            body = await request.json()
            prompt_ids = engine.model.prompt(body["messages"], body.get("tools"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return _error(400, f"not a chat request, or one that cannot be rendered: {error!r}")
        num_samples = int(body.get("n") or 1)
        try:
            if body.get("stream"):
                plan = engine.find(prompt_ids)
                begun = [engine.sample(plan, prompt_ids, _ask(body)) for _ in range(num_samples)]
                return StreamingResponse(ChatAnswer(engine, body, begun).events(plan.gate), media_type="text/event-stream")
            drawn = await _unless_gone(request, _draw_many(engine, prompt_ids, _ask(body), num_samples))
        except EngineFailure as error:
            return _error(500, str(error))
        return Response(status_code=499) if drawn is None else JSONResponse(ChatAnswer(engine, body, drawn).whole())

    async def models(request: Request) -> Response:
        card = {"id": MODEL_NAME, "object": "model", "created": 0, "owned_by": "vllm", "max_model_len": _MAX_MODEL_LEN}
        return JSONResponse({"object": "list", "data": [card]})

    async def fine(request: Request) -> Response:
        return JSONResponse({"status": "running", "version": "0.11.0"})

    async def abort(request: Request) -> Response:
        return JSONResponse({})

    return Starlette(
        routes=[
            Route("/inference/v1/generate", generate, methods=["POST"]),
            Route("/inference/v1/abort_requests", abort, methods=["POST"]),
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/models", models, methods=["GET"]),
            Route("/health", fine, methods=["GET"]),
            Route("/version", fine, methods=["GET"]),
        ]
    )


async def _draw_many(engine: StubEngine, prompt_ids: Sequence[int], ask: SampleAsk, num_samples: int) -> list[Draw]:
    return [await engine.draw(prompt_ids, ask) for _ in range(num_samples)]


async def _unless_gone(request: Request, drawing: Coroutine[Any, Any, T]) -> T | None:
    """What is drawn; None, and the draw is cancelled, if the client leaves before."""
    task = asyncio.create_task(drawing)
    watch = asyncio.create_task(_until_gone(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait({task})
        return None
    finally:
        watch.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _ask(params: Mapping[str, Any]) -> SampleAsk:
    limit = params.get("max_completion_tokens") or params.get("max_tokens") or DEFAULT_MAX_TOKENS
    temperature, top_p, stop = params.get("temperature"), params.get("top_p"), params.get("stop")
    return SampleAsk(
        max_tokens=int(limit),
        temperature=1.0 if temperature is None else float(temperature),
        top_p=1.0 if top_p is None else float(top_p),
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
    )


def _generated(drawn: Draw, request_id: str) -> dict[str, Any]:
    content = [
        {"token": f"token_id:{token}", "token_id": token, "logprob": logprob, "top_logprobs": []}
        for token, logprob in zip(drawn.token_ids, drawn.logprobs, strict=True)
    ]
    versions = [{"start": 0, "end": len(drawn.token_ids), "version": "1.0"}]
    choice = {
        "index": 0,
        "token_ids": list(drawn.token_ids),
        "logprobs": {"content": content},
        "finish_reason": drawn.finish_reason,
        "weight_versions": versions,
    }
    return {"request_id": request_id, "choices": [choice], "prompt_token_ids": list(drawn.prompt_ids)}


class ChatAnswer:
    """Draws as vLLM's Chat Completions answers them."""

    def __init__(self, engine: StubEngine, body: Mapping[str, Any], drawn: Sequence[Draw]) -> None:
        self._engine = engine
        self._body = body
        self._drawn = drawn
        self._id = f"chatcmpl-{drawn[0].number}"
        extra = body.get("extra_body") or {}
        self._with_ids = bool(body.get("return_token_ids") or extra.get("return_token_ids"))
        self._with_logprobs = bool(body.get("logprobs"))
        self._ids_as_tokens = bool(body.get("return_tokens_as_token_ids"))

    def whole(self) -> dict[str, Any]:
        """One chat.completion object."""
        choices = []
        for index, drawn in enumerate(self._drawn):
            message = self._message(drawn)
            choice: dict[str, Any] = {"index": index, "message": message, "finish_reason": _finish(drawn, message), "stop_reason": None}
            choice["logprobs"] = self._logprobs(drawn, 0, len(drawn.token_ids))
            choices.append(choice | ({"token_ids": list(drawn.token_ids)} if self._with_ids else {}))
        answer = {**self._head("chat.completion"), "choices": choices, "usage": self._usage(), "prompt_logprobs": None}
        return answer | ({"prompt_token_ids": list(self._drawn[0].prompt_ids)} if self._with_ids else {})

    async def events(self, gate: asyncio.Event | None) -> AsyncIterator[bytes]:
        """The same as chunks: tokens one by one, calls with the last, then usage. Logs what was handed out."""
        opening = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        first = {**self._head("chat.completion.chunk"), "choices": [opening]}
        yield _event(first | ({"prompt_token_ids": list(self._drawn[0].prompt_ids)} if self._with_ids else {}))
        for index, drawn in enumerate(self._drawn):
            num_sent = 0
            try:
                for choice in self._choices(index, drawn):
                    if num_sent == GATED_TOKENS and gate is not None:
                        await gate.wait()
                    yield _event({**self._head("chat.completion.chunk"), "choices": [choice]})
                    num_sent += 1
                    await asyncio.sleep(0)
            finally:
                self._engine.log(drawn, num_sent)
        if (self._body.get("stream_options") or {}).get("include_usage"):
            yield _event({**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage()})
        yield b"data: [DONE]\n\n"

    def _choices(self, index: int, drawn: Draw) -> Iterator[dict[str, Any]]:
        message = self._message(drawn)
        text, size = message["content"] or "", len(drawn.token_ids)
        step = math.ceil(len(text) / size)
        for place in range(size):
            is_last = place == size - 1
            piece = text[place * step : (place + 1) * step]
            delta: dict[str, Any] = {"content": piece} if piece else {}
            if is_last and message["tool_calls"]:
                delta["tool_calls"] = [{**call, "index": number} for number, call in enumerate(message["tool_calls"])]
            if place == 0 and message.get("reasoning_content"):
                delta["reasoning_content"] = message["reasoning_content"]
            choice: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": _finish(drawn, message) if is_last else None}
            choice["logprobs"] = self._logprobs(drawn, place, place + 1)
            yield choice | ({"token_ids": [drawn.token_ids[place]]} if self._with_ids else {})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": int(time.time()), "model": MODEL_NAME}

    def _message(self, drawn: Draw) -> dict[str, Any]:
        ask = _ask(self._body)
        said = self._engine.model.said(drawn.token_ids, self._body.get("tools"))
        content = said.content
        for stop in ask.stop:
            content = content.partition(stop)[0]
        calls = [
            {"id": f"chatcmpl-tool-{drawn.number}-{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for place, (name, arguments) in enumerate(said.calls)
        ]
        message = {"role": "assistant", "content": content or (None if calls else ""), "tool_calls": calls}
        return message | ({"reasoning_content": said.reasoning} if said.reasoning else {})

    def _logprobs(self, drawn: Draw, start: int, end: int) -> dict[str, Any] | None:
        if not self._with_logprobs:
            return None
        content = []
        for token, logprob in zip(drawn.token_ids[start:end], drawn.logprobs[start:end], strict=True):
            text = f"token_id:{token}" if self._ids_as_tokens else self._engine.model.text([token])
            content.append({"token": text, "logprob": logprob, "bytes": list(text.encode()), "top_logprobs": []})
        return {"content": content}

    def _usage(self) -> dict[str, int]:
        num_prompt, num_sampled = len(self._drawn[0].prompt_ids), sum(len(one.token_ids) for one in self._drawn)
        return {"prompt_tokens": num_prompt, "completion_tokens": num_sampled, "total_tokens": num_prompt + num_sampled}


def _finish(drawn: Draw, message: Mapping[str, Any]) -> str:
    return "tool_calls" if message.get("tool_calls") else drawn.finish_reason


def _event(content: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def _error(status: int, message: str) -> Response:
    kind = "BadRequestError" if status < 500 else "InternalServerError"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": status}}, status_code=status)
