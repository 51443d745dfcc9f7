"""Asks a language model by any OpenAI-compatible endpoint, and counts what it cost. Owns the calls; what is asked is its users'.

Nothing of the factory needs a model: all that asks one is off until it is given a Chat.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Literal

import aiohttp
import msgspec
from pydantic import BaseModel, ConfigDict, Field

from trunkline.errors import ConfigError, InfraError

_WORTH_A_RETRY = frozenset({408, 409, 429, 500, 502, 503, 504})
_LONGEST_WAIT_S = 60.0


class ChatSettings(BaseModel):
    """Where a model is asked, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(min_length=1, description="Up to what /chat/completions follows, such as 'http://127.0.0.1:8000/v1'.")
    model: str = Field(min_length=1, description="As the endpoint names it.")
    key_variable: str = Field("OPENAI_API_KEY", description="Environment variable with the key; unset: no key is sent.")
    temperature: float = Field(0.2, ge=0, le=2, description="Of sampling.")
    max_tokens: int = Field(2000, gt=0, description="Of an answer.")
    timeout_s: float = Field(120.0, gt=0, description="Of one request.")
    num_retries: int = Field(3, ge=0, le=10, description="After answers and broken connections that may be better next time.")
    price_in: float = Field(0.0, ge=0, description="Of a million tokens that are read, for the report.")
    price_out: float = Field(0.0, ge=0, description="Of a million tokens that are written, for the report.")


@dataclass(frozen=True)
class Message:
    """A turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    """Who says it."""
    content: str
    """What."""


@dataclass(frozen=True)
class Spent:
    """What answers have cost."""

    num_calls: int = 0
    """That were answered."""
    num_retries: int = 0
    """That were made again."""
    tokens_in: int = 0
    """Read, by the endpoint's own count."""
    tokens_out: int = 0
    """Written, by the endpoint's own count."""
    price: float = 0.0
    """By the prices of the settings."""


class Chat:
    """An endpoint that answers.

    >>> async with Chat.open(ChatSettings(base_url="http://127.0.0.1:8000/v1", model="small")) as chat:
    ...     await chat.ask([Message("user", "Say yes.")])
    'Yes.'
    """

    def __init__(self, settings: ChatSettings, http: aiohttp.ClientSession, *, pause_s: float = 1.0) -> None:
        self.settings = settings
        self.spent = Spent()
        self._http = http
        self._pause_s = pause_s

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: ChatSettings, *, pause_s: float = 1.0) -> AsyncIterator[Chat]:
        """Holds the connections. `pause_s` is waited before the first retry, and twice as long before each next."""
        key = os.environ.get(settings.key_variable, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=settings.timeout_s)) as http:
            yield cls(settings, http, pause_s=pause_s)

    async def ask(self, messages: Sequence[Message]) -> str:
        """The answer's text. Raises InfraError: no answer after all retries; ConfigError: the endpoint refuses the request."""
        trouble = ""
        for attempt in range(self.settings.num_retries + 1):
            if attempt:
                await asyncio.sleep(min(self._pause_s * 2 ** (attempt - 1), _LONGEST_WAIT_S))
                self.spent = replace(self.spent, num_retries=self.spent.num_retries + 1)
            try:
                status, body = await self._post(messages)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                trouble = f"{type(error).__name__} {error}".strip()
                continue
            if status == HTTPStatus.OK:
                return self._answer(body)
            trouble = f"status {status}: {body[:300].decode(errors='replace')}"
            if status not in _WORTH_A_RETRY:
                raise ConfigError(
                    f"{self._url} refuses the request with {trouble}; check base_url, model and ${self.settings.key_variable}"
                )
        raise InfraError(f"{self._url} gave no answer in {self.settings.num_retries + 1} tries; the last ended with {trouble}")

    @property
    def _url(self) -> str:
        return f"{self.settings.base_url.rstrip('/')}/chat/completions"

    async def _post(self, messages: Sequence[Message]) -> tuple[int, bytes]:
        body = {
            "model": self.settings.model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "temperature": self.settings.temperature,
            "max_tokens": self.settings.max_tokens,
        }
        async with self._http.post(self._url, json=body) as response:
            return response.status, await response.read()

    def _answer(self, body: bytes) -> str:
        try:
            told = msgspec.json.decode(body, type=_Completion)
        except msgspec.MsgspecError as error:
            raise InfraError(f"{self._url} gave an answer that is no chat completion ({error}): {body[:200]!r}") from error
        if not told.choices:
            raise InfraError(f"{self._url} gave an answer without choices: {body[:200]!r}")
        usage, settings, spent = told.usage or _Usage(), self.settings, self.spent
        price = (usage.prompt_tokens * settings.price_in + usage.completion_tokens * settings.price_out) / 1e6
        self.spent = replace(
            spent,
            num_calls=spent.num_calls + 1,
            tokens_in=spent.tokens_in + usage.prompt_tokens,
            tokens_out=spent.tokens_out + usage.completion_tokens,
            price=spent.price + price,
        )
        return told.choices[0].message.content or ""


class _Said(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Said


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


def json_object(answer: str) -> dict[str, Any] | None:
    """The JSON object in an answer, whatever words and fences are around it; None if there is none."""
    start, end = answer.find("{"), answer.rfind("}")
    try:
        found = msgspec.json.decode(answer[start : end + 1]) if 0 <= start < end else None
    except msgspec.MsgspecError:
        return None
    return found if isinstance(found, dict) else None
