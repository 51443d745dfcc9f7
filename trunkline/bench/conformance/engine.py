"""What the kit's engine samples, and its log of every draw. Owns no HTTP (engine_http.py).

A case plans what the model will say and puts the plan's mark, "(plan 7)", in its last message. The engine finds the last mark
in the decoded prompt, whatever the proxy made of the rest, and "samples" the planned tokens. Log-probabilities differ from draw
to draw and from token to token, and are exact in single precision, so a record shows which draw it holds.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from trunkline.bench.conformance.model import ChatModel

_MARK = re.compile(r"\(plan (\d+)\)")
DEFAULT_MAX_TOKENS = 4096
GATED_TOKENS = 2


@dataclass
class Plan:
    """What the model says where its mark stands last."""

    number: int
    """In its mark."""
    variants: tuple[tuple[int, ...], ...]
    """Tokens of the first draw, the second, ...; the last one for ever. The end of the turn is part of them."""
    num_failures: int = 0
    """So many draws fail first, as an engine that is restarted does."""
    gate: asyncio.Event | None = None
    """An answer in one piece comes once it is set, a stream stands still after GATED_TOKENS until then; None: no gate."""
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a request for it has arrived."""
    num_draws: int = 0
    """How often it was sampled."""

    @property
    def mark(self) -> str:
        """To be put in a message."""
        return f"(plan {self.number})"


@dataclass(frozen=True)
class Draw:
    """One sampled completion."""

    number: int
    """Counted over the engine's life."""
    prompt_ids: tuple[int, ...]
    """The exact context."""
    token_ids: tuple[int, ...]
    """What was sampled."""
    logprobs: tuple[float, ...]
    """Of each."""
    finish_reason: str
    """stop, length, or abort: a stream whose reader left."""
    temperature: float
    """Asked of the engine; 1 if nothing was."""
    top_p: float
    """Asked of the engine; 1 if nothing was."""

    @property
    def is_policy(self) -> bool:
        """Sampled from the whole distribution, so that it may be trained."""
        return self.temperature > 0 and self.top_p >= 1


@dataclass(frozen=True)
class SampleAsk:
    """What a proxy asked of the engine's sampler."""

    max_tokens: int = DEFAULT_MAX_TOKENS
    """At most so many."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Nucleus mass."""
    stop: tuple[str, ...] = ()
    """The text ends before one of these; the token that completes it is the last."""


class EngineFailure(Exception):
    """A planned failure: the engine answers 500."""


class StubEngine:
    """Plans, and the log of draws."""

    def __init__(self, model: ChatModel) -> None:
        self.model = model
        self.draws: list[Draw] = []
        """What was handed out, in order: whole completions, or of a stream that was cut its first tokens."""
        self.num_abandoned = 0
        """Requests whose client went away before a token was sampled."""
        self.is_drifting = False
        """Planned texts are sampled one byte a token, which no encoder writes; else in their canonical tokens."""
        self._plans: dict[int, Plan] = {}
        self._num_sampled = 0

    def plan(self, *variants: str | Sequence[int], num_failures: int = 0, gate: asyncio.Event | None = None) -> Plan:
        """A new plan. A text is sampled as `is_drifting` says, and ended; ids are sampled as they are."""
        written = self.model.drifted_ids if self.is_drifting else self.model.ids
        sampled = tuple((*written(one), self.model.end_id) if isinstance(one, str) else tuple(one) for one in variants)
        plan = Plan(len(self._plans) + 1, sampled, num_failures=num_failures, gate=gate)
        self._plans[plan.number] = plan
        return plan

    async def draw(self, prompt_ids: Sequence[int], ask: SampleAsk) -> Draw:
        """Samples one completion once its plan's gate is open, and logs it. Raises EngineFailure where one is planned.

        A prompt without a mark is answered 'ok'.
        """
        plan = self.find(prompt_ids)
        if plan.gate is not None:
            try:
                await plan.gate.wait()
            except asyncio.CancelledError:
                self.num_abandoned += 1
                raise
        drawn = self.sample(plan, prompt_ids, ask)
        self.draws.append(drawn)
        return drawn

    def find(self, prompt_ids: Sequence[int]) -> Plan:
        """The plan of this prompt. Raises EngineFailure where one is planned."""
        marks = _MARK.findall(self.model.text(prompt_ids))
        plan = self._plans.get(int(marks[-1])) if marks else None
        if plan is None:
            return Plan(0, ((*self.model.ids("ok"), self.model.end_id),))
        plan.entered.set()
        if plan.num_failures > 0:
            plan.num_failures -= 1
            raise EngineFailure("the engine is restarted")
        return plan

    def sample(self, plan: Plan, prompt_ids: Sequence[int], ask: SampleAsk) -> Draw:
        """The plan's next draw, not yet logged: a stream logs what it handed out."""
        variant = plan.variants[min(plan.num_draws, len(plan.variants) - 1)]
        plan.num_draws += 1
        token_ids, finish_reason = self._cut(variant, ask)
        number = self._num_sampled
        self._num_sampled += 1
        logprobs = tuple(-(0.5 + (number % 2048) / 1024 + place / 2**20) for place in range(len(token_ids)))
        return Draw(number, tuple(prompt_ids), token_ids, logprobs, finish_reason, ask.temperature, ask.top_p)

    def log(self, drawn: Draw, num_handed: int) -> None:
        """Logs a streamed draw: all of it, or as far as its reader stayed."""
        if num_handed < len(drawn.token_ids):
            drawn = replace(drawn, token_ids=drawn.token_ids[:num_handed], logprobs=drawn.logprobs[:num_handed], finish_reason="abort")
        if drawn.token_ids:
            self.draws.append(drawn)

    def _cut(self, variant: tuple[int, ...], ask: SampleAsk) -> tuple[tuple[int, ...], str]:
        """By the limit and by stop strings, as vLLM does: the token that completes one is kept, the text is cut before it."""
        for end in range(1, len(variant) + 1 if ask.stop else 0):
            if any(stop in self.model.text(variant[:end]) for stop in ask.stop):
                variant = variant[:end]
                break
        if len(variant) > ask.max_tokens:
            return variant[: ask.max_tokens], "length"
        return variant, "stop"
