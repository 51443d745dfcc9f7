"""One agent's connection: its secret, its budget, its calls in flight. Owns no tokens (recorder.py) and no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

from trunkline.errors import BudgetExceeded, ContextExceeded, UnknownSession
from trunkline.gateway.recorder import EpisodeRecorder
from trunkline.gateway.sampling import AskedSampling, SamplingPolicy
from trunkline.types import SamplingParams


@dataclass(frozen=True)
class SessionBudget:
    """What one session may spend; the call after is refused with HTTP 429."""

    max_calls: int = 256
    """Calls answered or in flight."""
    max_tokens: int = 1_000_000
    """Sampled tokens; a call is cut to what is left when it starts."""
    max_context: int = 32_768
    """Tokens of one prompt and its completion; a call is cut to what is left, a longer prompt refused."""


@dataclass(frozen=True)
class OpenSession:
    """What the opener of a session is told."""

    session_id: str
    """Names it in records; no secret."""
    secret: str
    """The agent's URL path /s/SECRET/v1 or its API key."""


class Session:
    """The state of one open session. `recorder` is its episode's, shared with the episode's other sessions."""

    def __init__(self, opened: OpenSession, recorder: EpisodeRecorder, *, seed: int, hold: SamplingPolicy, budget: SessionBudget) -> None:
        self.session_id = opened.session_id
        self.secret = opened.secret
        self.recorder = recorder
        self.seed = seed
        self.hold = hold
        self.budget = budget
        self.is_open = True
        self.is_spent = False
        """A call was refused because the budget was spent."""
        self.has_overflowed = False
        """A prompt was refused because it was longer than the context."""
        self.num_calls = 0
        self.num_sampled = 0
        self.num_named = 0
        self.running: set[str] = set()
        """Requests that the engine has."""
        self.tasks: set[asyncio.Task[Any]] = set()
        """Calls that are not answered yet."""
        self.unread: dict[Hashable, asyncio.Task[Any]] = {}
        """Calls whose client left before it had the answer, by what was asked: the next to ask the same gets it."""

    def check_open(self) -> None:
        """Raises UnknownSession after the close."""
        if not self.is_open:
            raise UnknownSession("this session is closed; its key and path are revoked")

    def admit(self, num_samples: int) -> None:
        """Counts calls. Raises UnknownSession after the close, BudgetExceeded if calls or tokens are spent."""
        self.check_open()
        if self.num_calls + num_samples > self.budget.max_calls:
            raise self._spent(f"of the session's {self.budget.max_calls} calls {self.num_calls} are spent, {num_samples} are asked")
        if self.num_sampled >= self.budget.max_tokens:
            raise self._spent(f"the session's {self.budget.max_tokens} sampled tokens are spent")
        self.num_calls += num_samples

    def release(self) -> None:
        """Takes back the count of a call that sampled nothing."""
        self.num_calls -= 1

    def next_completion_id(self) -> str:
        """Unique in the run: session ids are random, so a resumed run cannot repeat one."""
        self.num_named += 1
        return f"{self.session_id}.{self.num_named}"

    def sampling(self, asked: AskedSampling, *, num_prompt: int, stop_token_ids: tuple[int, ...]) -> SamplingParams:
        """The policy's distribution (unseeded), cut to budget.

        Raises ContextExceeded if the prompt leaves no room for a token, MalformedRequest for what the policy refuses.
        """
        room = self.budget.max_context - num_prompt
        if room < 1:
            self.has_overflowed = True
            most = self.budget.max_context - 1
            raise ContextExceeded(f"prompt is too long: {num_prompt} tokens > {most} maximum; shorten it")
        params = self.hold.params(asked)
        limit = min(params.max_tokens, room, max(1, self.budget.max_tokens - self.num_sampled))
        return replace(params, max_tokens=limit, stop_token_ids=stop_token_ids)

    def _spent(self, message: str) -> BudgetExceeded:
        self.is_spent = True
        return BudgetExceeded(message)
