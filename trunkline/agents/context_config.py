"""The recipe's sections [agent.context] and [agent.sub_agents]. Owns their knobs and checks; what they do is the loop's."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trunkline.agents.context_management import METHODS

_KNOBS: Mapping[str, frozenset[str]] = {
    "keep_all": frozenset(),
    "sliding_window": frozenset({"turns"}),
    "drop_all": frozenset({"fraction", "keep_last"}),
    "summary": frozenset({"fraction", "instruction"}),
}
_OF_MAX_CONTEXT = frozenset({"drop_all", "summary"})


class ContextConfig(BaseModel):
    """What of a conversation the model sees next. A knob that is not set has the method's default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field(
        "keep_all",
        description="keep_all, sliding_window, drop_all, summary, or MODULE:CLASS (agents/context_management.py).",
    )
    turns: int | None = Field(None, ge=1, description="sliding_window: turns that are kept, each with its tools' results; default 4.")
    fraction: float | None = Field(
        None, gt=0, lt=1, description="drop_all, summary: of max_context, what a call may use before the context is cut; default 0.3, 0.6."
    )
    keep_last: bool | None = Field(None, description="drop_all: the last turn is kept; default false.")
    instruction: str | None = Field(None, min_length=1, description="summary: what the model is told to sum up by.")
    options: dict[str, Any] = Field(default_factory=dict, description="MODULE:CLASS: its arguments.")

    @model_validator(mode="after")
    def _check(self) -> ContextConfig:
        given = {knob for knob in ("turns", "fraction", "keep_last", "instruction") if getattr(self, knob) is not None}
        if self.options:
            given.add("options")
        if ":" in self.method:
            _check_path(self.method)
            honoured = frozenset({"options"})
        elif self.method in METHODS:
            honoured = _KNOBS[self.method]
        else:
            raise ValueError(f"no context management {self.method!r}; choose one of {', '.join(METHODS)}, or MODULE:CLASS")
        if ignored := sorted(given - honoured):
            raise ValueError(f"{self.method} does not honour {', '.join(ignored)}; it has {', '.join(sorted(honoured)) or 'no knobs'}")
        return self

    def settings(self, *, max_context: int) -> dict[str, Any]:
        """What load_method takes."""
        knobs = {knob: value for knob in _KNOBS.get(self.method, ()) if (value := getattr(self, knob)) is not None}
        if self.method in _OF_MAX_CONTEXT:
            knobs["max_context"] = max_context
        return {"method": self.method, **knobs, **self.options}


class SubAgentsConfig(BaseModel):
    """Conversations that the agent starts for parts of its work, by a tool named `delegate`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    depth: int = Field(0, ge=0, le=4, description="0: none; 1: the agent has some; 2: these may have some too; ...")
    limit: int = Field(4, ge=1, description="Of one attempt, at all depths together; one more is refused by the tool.")

    @property
    def max_sub_agents(self) -> int:
        """0 where there are none."""
        return self.limit if self.depth else 0


def _check_path(path: str) -> None:
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise ValueError(f"context management {path!r} cannot be imported: {error}") from error
    if found is None:
        raise ValueError(f"{module} has no {name!r}; context management is named MODULE:CLASS")
