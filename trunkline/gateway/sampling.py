"""Which distribution a call is sampled from, and its seed. Owns what becomes of what clients ask; samples nothing."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trunkline.errors import MalformedRequest
from trunkline.types import Generation, SamplingParams

_GREEDY_BELOW = 1e-5
"""Colder than this is greedy: logits divided by less may overflow, and tokens differ only where logits differ by less than 1e-4."""


@dataclass(frozen=True)
class AskedSampling:
    """What a client asked of a call. What is honoured, its session's SamplingPolicy says; all of it is recorded."""

    max_tokens: int | None = None
    """Its limit of sampled tokens."""
    temperature: float | None = None
    """Its temperature."""
    top_p: float | None = None
    """Its nucleus mass."""
    seed: int | None = None
    """Its seed."""
    stop: tuple[str, ...] = ()
    """Its stop strings."""

    def stated(self) -> dict[str, Any]:
        """What it stated, by name."""
        every = {"max_tokens": self.max_tokens, "temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        stated = {name: value for name, value in every.items() if value is not None}
        return stated | ({"stop": list(self.stop)} if self.stop else {})


class SamplingPolicy(Protocol):
    """What a session samples, given what its client asks. `SamplingHold()` is the smallest."""

    def params(self, asked: AskedSampling) -> SamplingParams:
        """Distribution and token limit, without seed and stop tokens. Raises MalformedRequest for what cannot be honoured."""
        ...


@dataclass(frozen=True)
class SamplingHold:
    """What the recipe holds for a session, whatever its client asks. `SamplingHold(temperature=0)` evaluates greedily."""

    temperature: float = 1.0
    """Logits are divided by it; 0 is greedy, and then nothing is trained."""
    top_p: float = 1.0
    """Nucleus mass kept; below 1 nothing is trained."""
    max_tokens: int = 1024
    """At most this many tokens a call; a client may ask for fewer."""

    def params(self, asked: AskedSampling) -> SamplingParams:
        """The hold's own; only a lower max_tokens is honoured here (stop strings are the gateway's: stopping.py)."""
        limit = self.max_tokens if asked.max_tokens is None else min(self.max_tokens, asked.max_tokens)
        return SamplingParams(limit, self.temperature, self.top_p)


@dataclass(frozen=True)
class ClientSampling:
    """What a served session samples: what its client asks. The fields stand in for what it leaves out."""

    temperature: float = 1.0
    """Logits are divided by it; 0 is greedy."""
    top_p: float = 1.0
    """Nucleus mass kept."""
    max_tokens: int = 1024
    """Tokens of a call whose client names no limit; one that does may ask for more, up to the session's context."""

    def params(self, asked: AskedSampling) -> SamplingParams:
        """As asked. Raises MalformedRequest for a temperature below 0 or a top_p outside (0, 1]."""
        temperature = self.temperature if asked.temperature is None else asked.temperature
        top_p = self.top_p if asked.top_p is None else asked.top_p
        if not (math.isfinite(temperature) and temperature >= 0):
            raise MalformedRequest(f"temperature must be at least 0, got {temperature}; 0 is greedy")
        if not 0 < top_p <= 1:
            raise MalformedRequest(f"top_p must be above 0 and at most 1, got {top_p}; for greedy answers set temperature to 0")
        limit = self.max_tokens if asked.max_tokens is None else asked.max_tokens
        return SamplingParams(limit, temperature if temperature >= _GREEDY_BELOW else 0.0, top_p)


class ContextHash(Protocol):
    """Of hashlib: the hash of an exact context, whose digest names it in 16 bytes."""

    def copy(self) -> ContextHash:
        """One that goes on by itself."""
        ...

    def update(self, data: bytes, /) -> None:
        """Goes on."""
        ...

    def digest(self) -> bytes:
        """What names the context."""
        ...


def hash_ids(token_ids: Sequence[int], before: ContextHash | None = None) -> ContextHash:
    """The hash of a context: of one that begins with another, whose hash is `before`, only what follows is read."""
    hashed: ContextHash = hashlib.blake2b(digest_size=16) if before is None else before.copy()
    hashed.update(array("Q", token_ids).tobytes())
    return hashed


def call_seed(episode_seed: int, digest: bytes, repeat: int) -> int:
    """An unsigned 64-bit seed of (episode seed, context, how often this context was asked before in the episode).

    Nothing else enters, so the order and the timing of calls do not matter.
    """
    key = f"{episode_seed}:{repeat}:".encode()
    return int.from_bytes(hashlib.blake2b(key + digest, digest_size=8).digest(), "little")


def drop_reason(sampling: SamplingParams, generation: Generation) -> str | None:
    """Why these tokens may not be trained; None if they may. A completion cut by its length may."""
    if generation.finish_reason == "abort":
        return "aborted"
    if not sampling.is_policy_distribution:
        return f"sampled under another distribution: temperature {sampling.temperature:g}, top_p {sampling.top_p:g}"
    return None
