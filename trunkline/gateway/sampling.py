"""Which distribution a call is sampled from, and its seed. Owns the recipe's hold over what clients ask; samples nothing."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from trunkline.types import Generation, SamplingParams


@dataclass(frozen=True)
class SamplingHold:
    """What the recipe holds for a session, whatever its client asks. `SamplingHold(temperature=0)` evaluates greedily."""

    temperature: float = 1.0
    """Logits are divided by it; 0 is greedy, and then nothing is trained."""
    top_p: float = 1.0
    """Nucleus mass kept; below 1 nothing is trained."""
    max_tokens: int = 1024
    """At most this many tokens a call; a client may ask for fewer."""


@dataclass(frozen=True)
class AskedSampling:
    """What a client asked of a call. Only `max_tokens` is honoured (as a minimum with the hold); the rest is recorded."""

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


def prompt_digest(prompt_ids: Sequence[int]) -> bytes:
    """16 bytes that name an exact context."""
    return hashlib.blake2b(array("Q", prompt_ids).tobytes(), digest_size=16).digest()


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
