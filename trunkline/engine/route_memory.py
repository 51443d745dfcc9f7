"""Where a sparse model sent each cached token, a row a slot. Owns the array and what a call reports of it; no slots, no torch."""

# N slots, T tokens, L layers, K experts a token and layer

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trunkline.engine.slots import Ints
from trunkline.types import RoutedExperts

ReturnRoutes = Literal["none", "sampled", "all"]
"""Which routes a sparse model's calls report: none; those of sampled tokens; those of the prompt too."""


@dataclass(frozen=True)
class RouteMemory:
    """Beside the KV cache: a token found there again has the route it was computed with, whichever call it was computed for."""

    experts_NLK: NDArray[np.uint16]
    """By slot."""
    reports_prompts: bool
    """Whether calls report the routes of their prompts too."""

    @classmethod
    def allocate(cls, num_slots: int, num_layers: int, top_k: int, *, reports: ReturnRoutes) -> RouteMemory | None:
        """None for a dense model (`top_k` 0), and where nothing is to be reported. Pages are taken from the system as they are written."""
        if top_k == 0 or reports == "none":
            return None
        return cls(np.zeros((num_slots, num_layers, top_k), np.uint16), reports == "all")

    def write(self, slots_T: Ints, experts_TLK: NDArray[np.uint16]) -> None:
        """Notes the routes of T tokens."""
        self.experts_NLK[slots_T] = experts_TLK

    def report(self, slots: Ints, *, num_prompt: int) -> RoutedExperts:
        """What a call answers whose computed tokens (prompt, then completion, the last sampled one left out) lie in `slots`."""
        first = 0 if self.reports_prompts else num_prompt
        _, num_layers, top_k = self.experts_NLK.shape
        return RoutedExperts(first, num_layers, top_k, self.experts_NLK[slots[first:]].astype("<u2", copy=False).tobytes())
