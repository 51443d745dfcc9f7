"""Which failed attempts are begun again. Owns the rule alone; how often and when is the pool's."""

from __future__ import annotations

from trunkline.types import Boundary, EpisodeStatus

_RUN_AGAIN: frozenset[Boundary] = frozenset({"infra", "engine", "sandbox", "gateway"})


def is_run_again(status: EpisodeStatus, boundary: Boundary | None) -> bool:
    """True for an attempt that failed on our side; what failed at the agent's or the verifier's would fail again."""
    return status == "failed" and boundary in _RUN_AGAIN
