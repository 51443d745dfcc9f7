"""HTTP for sources of changes: answers of bounded size, asked for again when server or network is at fault. Owns no meaning of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from trunkline.errors import ConfigError, InfraError
from trunkline.tasks.factory.candidate import Rejection

PAUSES_S = (0.5, 2.0, 8.0)
"""Between tries."""
_TIMEOUT = aiohttp.ClientTimeout(total=120, sock_connect=20, sock_read=60)
_CHUNK_BYTES = 2**16
_FAULTY = frozenset({500, 502, 503, 504})
_LONGEST_PAUSE_S = 60.0

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True)
class Question:
    """One request."""

    url: str
    """Absolute; user and password in it are sent, and never shown."""
    headers: Mapping[str, str]
    """To send. Authorization is not passed on to another host by a redirect."""
    most_bytes: int
    """Of the answer's body."""
    body: Mapping[str, Any] | None = None
    """To post as JSON; without it the request is a GET."""

    @property
    def shown(self) -> str:
        """The URL for people, without user, password and query."""
        return public(self.url)


@dataclass(frozen=True)
class Answer:
    """One answer, whatever its status."""

    status: int
    """Of HTTP."""
    headers: Mapping[str, str]
    """Case does not matter."""
    body: bytes
    """All of it."""


def public(url: str) -> str:
    """A URL that may be shown and kept: without user, password, query and fragment."""
    return str(URL(url).with_user(None).with_query(None).with_fragment(None))


def open_session() -> aiohttp.ClientSession:
    """With the proxies that the environment names."""
    return aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=True)


async def ask(session: aiohttp.ClientSession, question: Question, *, sleep: Sleep = asyncio.sleep) -> Answer:
    """The answer to a question; a server's own fault and a broken connection are tried again.

    Raises:
        InfraError: no answer but faults, however often it was tried.
        ConfigError: the URL is none.
        Rejection: the answer is too large (select).
    """
    fault = ""
    for pause in (*PAUSES_S, None):
        try:
            answer = await _ask_once(session, question)
        except aiohttp.InvalidURL:
            raise ConfigError(f"{question.shown!r} is no URL; give one such as https://example.org/simple") from None
        except (aiohttp.ClientError, TimeoutError) as error:
            fault = f"{type(error).__name__}: {error}".rstrip(": ")
        else:
            if answer.status not in _FAULTY:
                return answer
            fault = f"HTTP {answer.status}"
            if pause is not None:
                pause = max(pause, min(seconds_to_wait(answer), _LONGEST_PAUSE_S))
        if pause is not None:
            await sleep(pause)
    raise InfraError(
        f"{question.shown} gives no answer ({fault}, tried {len(PAUSES_S) + 1} times); check the network and its proxy settings"
    )


def seconds_to_wait(answer: Answer) -> float:
    """What its Retry-After demands, if it is in seconds; else 0."""
    said = answer.headers.get("Retry-After", "")
    return float(said) if said.isdigit() else 0.0


async def _ask_once(session: aiohttp.ClientSession, question: Question) -> Answer:
    method = "GET" if question.body is None else "POST"
    async with session.request(method, question.url, headers=question.headers, json=question.body) as reply:
        body = bytearray()
        async for chunk in reply.content.iter_chunked(_CHUNK_BYTES):
            body += chunk
            if len(body) > question.most_bytes:
                raise Rejection("select", "too large", f"{question.shown} has more than {question.most_bytes} bytes")
        return Answer(reply.status, reply.headers.copy(), bytes(body))
