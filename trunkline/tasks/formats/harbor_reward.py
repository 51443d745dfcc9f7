"""The reward files of Harbor's format, read. Owns nothing else: no file of a sandbox is opened here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from trunkline.errors import VerifierError


def read_reward(files: Mapping[str, bytes]) -> dict[str, float]:
    """The rewards in the files of /logs/verifier: reward.json, else reward.txt as the reward named 'reward'.

    Raises VerifierError where there is none, or it is no finite number: that is no verdict, not 0.
    """
    if "reward.json" in files:
        return _json_rewards(files["reward.json"])
    if "reward.txt" not in files:
        raise VerifierError(f"tests/test.sh left neither reward.json nor reward.txt in /logs/verifier, only {sorted(files) or 'nothing'}")
    text = files["reward.txt"].decode("utf-8", "replace").strip()
    try:
        value = float(text)
    except ValueError:
        raise VerifierError(f"reward.txt must hold one number, got {text[:100]!r}") from None
    return {"reward": _finite("reward.txt", value)}


def _json_rewards(content: bytes) -> dict[str, float]:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise VerifierError(f"reward.json must hold a JSON object of numbers, got {content[:100]!r}: {error}") from error
    if not isinstance(found, dict) or not found:
        raise VerifierError(f"reward.json must hold a JSON object of numbers, got {content[:100]!r}")
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise VerifierError(f"reward.json: {name!r} must be a number, got {value!r}")
    return {name: _finite(f"reward.json: {name!r}", value) for name, value in found.items()}


def _finite(place: str, value: float) -> float:
    try:
        number = float(value)
    except OverflowError:  # an int beyond all floats
        number = math.inf
    if not math.isfinite(number):
        raise VerifierError(f"{place} must be a finite number, got {number}")
    return number
