"""GitHub's API as sources read it: pages, rate limits waited for, answers kept on this host. Owns no meaning of a pull request.

    kept, and never changes?  ──► from disk, nothing is sent
    kept, and may change?     ──► sent with its ETag ──► 304: from disk, at no cost of the quota (with a token)
    limited (403, 429)?       ──► waited until Retry-After or the reset ──► sent again

$TRUNKLINE_HOME/github holds what came. The token is sent to the API alone: not to hosts that it redirects to, not into a file.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from trunkline.errors import ConfigError, InfraError
from trunkline.home import cache_home
from trunkline.tasks.factory.candidate import Rejection
from trunkline.tasks.factory.web import Answer, Question, Sleep, ask, open_session, seconds_to_wait

PUBLIC_API = "https://api.github.com"
_VERSION = "2022-11-28"
_MOST_JSON_BYTES = 32 * 2**20
_MOST_TREE_BYTES = 64 * 2**20
_MOST_WAITS = 8
_MINUTE_S = 60.0
_LONGEST_WAIT_S = 2 * 3600.0
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="next"')
_GONE = frozenset({404, 410, 451})


@dataclass(frozen=True)
class GithubAccess:
    """How the API is reached."""

    base_url: str = PUBLIC_API
    """Of its REST side; an enterprise server's ends in /api/v3."""
    token_variable: str = "GITHUB_TOKEN"
    """Environment variable with a token; without one there are 60 requests an hour, and links of issues are only those in texts."""
    on_wait: Callable[[str, float], None] = lambda why, seconds: None
    """Told before each wait for a rate limit: why, and for how long."""
    sleep: Sleep = asyncio.sleep
    """Waits."""


class Github:
    """An open connection. Made by `connect`."""

    def __init__(self, session: aiohttp.ClientSession, access: GithubAccess) -> None:
        self._session = session
        self._access = access
        self._token = os.environ.get(access.token_variable, "")

    @property
    def has_token(self) -> bool:
        """Whether GraphQL may be used."""
        return bool(self._token)

    async def read(self, path: str, query: Mapping[str, str] | None = None, *, lasting: bool = True) -> Any | None:
        """The JSON at a path such as '/repos/pytoolz/toolz'; None if there is none.

        Args:
            path: Below the base URL.
            query: Of the URL.
            lasting: An answer that was kept is taken without asking again.
        """
        answer = await self._get(self._url(path, query), lasting=lasting)
        return None if answer is None else answer["body"]

    async def pages(self, path: str, query: Mapping[str, str] | None = None, *, lasting: bool = True) -> AsyncIterator[Any]:
        """The items of a list, over all its pages; none if there is no list."""
        url: str | None = self._url(path, {"per_page": "100", **(query or {})})
        while url is not None:
            answer = await self._get(url, lasting=lasting)
            for item in answer["body"] if answer else ():
                yield item
            url = answer["next"] if answer else None

    async def graphql(self, query: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """The data of a query, kept for ever; {} if it cannot be answered, such as for a repository that is gone."""
        base = self._access.base_url.rstrip("/")
        url = f"{base.removesuffix('/v3')}/graphql"
        posted = {"query": query, "variables": dict(variables)}
        place = _place(json.dumps([url, posted], sort_keys=True))
        if place.is_file():
            return dict(json.loads(place.read_text())["body"])
        answer = await self._ask(Question(url, self._headers(), _MOST_JSON_BYTES, posted))
        told = _json_of(answer, url)
        data = told.get("data") if isinstance(told, dict) and not told.get("errors") else None
        if data:
            _keep(json.dumps({"url": url, "body": data}).encode(), place)
        return data or {}

    async def tree(self, repository: str, commit: str) -> Path:
        """The .tar.gz of a commit's files on this host. Raises Rejection (select) if it is gone or too large."""
        place = cache_home() / "github" / "trees" / repository / f"{commit}.tar.gz"
        if not place.is_file():
            url = self._url(f"/repos/{repository}/tarball/{commit}", None)
            answer = await self._ask(Question(url, self._headers(), _MOST_TREE_BYTES))
            if answer.status != 200:
                raise Rejection("select", "files cannot be laid", f"{url}: HTTP {answer.status}; give a local clone that has the commit")
            _keep(answer.body, place)
        return place

    async def _get(self, url: str, *, lasting: bool) -> dict[str, Any] | None:
        place = _place(url)
        kept = json.loads(place.read_text()) if place.is_file() else None
        if kept is not None and lasting:
            return dict(kept)
        headers = self._headers() | ({"If-None-Match": kept["etag"]} if kept and kept["etag"] else {})
        answer = await self._ask(Question(url, headers, _MOST_JSON_BYTES))
        if answer.status == 304 and kept is not None:
            return dict(kept)
        if answer.status in _GONE:
            return None
        told = {"url": url, "etag": answer.headers.get("ETag"), "next": self._next(answer), "body": _json_of(answer, url)}
        _keep(json.dumps(told).encode(), place)
        return told

    async def _ask(self, question: Question) -> Answer:
        for tried in range(_MOST_WAITS):
            answer = await ask(self._session, question, sleep=self._access.sleep)
            seconds = _seconds_of_limit(answer, tried)
            if seconds is None:
                return self._checked(answer, question)
            if seconds > _LONGEST_WAIT_S:
                break
            self._access.on_wait(
                "rate limit" if self._token else f"rate limit (set {self._access.token_variable} for a higher one)", seconds
            )
            await self._access.sleep(seconds)
        raise InfraError(f"{question.shown}: the rate limit does not end; go on later: what has come is kept")

    def _checked(self, answer: Answer, question: Question) -> Answer:
        if answer.status == 401:
            raise ConfigError(f"{question.shown} refuses the token in ${self._access.token_variable}; renew it, or unset the variable")
        if answer.status not in (200, 304) and answer.status not in _GONE:
            raise ConfigError(f"{question.shown} refuses with HTTP {answer.status}: {_message(answer)}")
        return answer

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": _VERSION, "User-Agent": "trunkline"}
        return headers | ({"Authorization": f"Bearer {self._token}"} if self._token else {})

    def _url(self, path: str, query: Mapping[str, str] | None) -> str:
        return str(URL(self._access.base_url.rstrip("/") + path).with_query(query or None))

    def _next(self, answer: Answer) -> str | None:
        found = _NEXT.search(answer.headers.get("Link", ""))
        if found is None:
            return None
        if URL(found[1]).origin() != URL(self._access.base_url).origin():
            raise InfraError(f"{self._access.base_url} names a next page on another host, {URL(found[1]).host}; it is not followed")
        return found[1]


@asynccontextmanager
async def connect(access: GithubAccess) -> AsyncIterator[Github]:
    """Opens a connection and closes it."""
    async with open_session() as session:
        yield Github(session, access)


def _place(url: str) -> Path:
    digest = hashlib.sha256(url.encode()).hexdigest()
    return cache_home() / "github" / "answers" / digest[:2] / f"{digest}.json"


def _keep(content: bytes, place: Path) -> None:
    """In one step, so that a file that is there is whole."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".", delete=False) as part:
            part.write(content)
        os.replace(part.name, place)
    except OSError as error:
        raise ConfigError(f"cannot write {place}: {error}; check space and permissions, or set TRUNKLINE_HOME") from error


def _json_of(answer: Answer, url: str) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError:
        raise InfraError(f"{url} answers with no JSON; is it GitHub's API?") from None


def _message(answer: Answer) -> str:
    try:
        return str(json.loads(answer.body)["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return answer.body[:300].decode(errors="replace")


def _seconds_of_limit(answer: Answer, tried: int) -> float | None:
    """How long a limited answer asks to wait: Retry-After, else until the reset, else a minute, doubled each time; None if not limited."""
    is_limited_query = answer.status == 200 and b'"RATE_LIMITED"' in answer.body[:2000]
    if answer.status not in (403, 429) and not is_limited_query:
        return None
    if seconds := seconds_to_wait(answer):
        return seconds
    reset = answer.headers.get("X-RateLimit-Reset", "")
    if answer.headers.get("X-RateLimit-Remaining") == "0" and reset.isdigit():
        return max(0.0, float(reset) - _clock_of(answer)) + 1.0
    if answer.status == 429 or is_limited_query or "rate limit" in _message(answer).lower():
        return _MINUTE_S * 2**tried
    return None


def _clock_of(answer: Answer) -> float:
    """The server's, since this host's may be wrong."""
    try:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return time.time()
