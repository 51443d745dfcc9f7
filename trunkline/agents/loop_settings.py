"""What one white-box loop is set to, as it crosses into a sandbox. Owns no checking (context_config.py) and no loop."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LoopSettings:
    """Limits, context management, sub-agents. `LoopSettings(max_turns=8)`."""

    max_turns: int
    """Calls of the model in one conversation at most."""
    context: Mapping[str, Any] = field(default_factory=lambda: {"method": "keep_all"})
    """The method with its knobs, as load_method of context_management.py takes them."""
    depth: int = 0
    """How deep sub-agents may delegate in turn; 0: there are none."""
    max_sub_agents: int = 0
    """Of one attempt, at all depths together."""

    def dump(self) -> str:
        """As one argument of a command line; loop_program.py reads it."""
        settings = {"max_turns": self.max_turns, "context": dict(self.context), "depth": self.depth, "max_sub_agents": self.max_sub_agents}
        return json.dumps(settings)
